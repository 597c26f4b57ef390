// What has to be so before data is moved: it is this instance's, and nobody writes to it.

import {
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
} from "node:fs";
import { join } from "node:path";
import { Failure } from "../std/errors.ts";
import { isWithin } from "../std/hostpath.ts";
import type { Instance } from "../instance/instance.ts";
import { label } from "../instance/labels.ts";
import { refuseForeignInstance } from "../instance/ownership.ts";
import { askGateway } from "../mcp/client.ts";
import { liveWorkers } from "../worker/workers.ts";
import { backupParts } from "./parts.ts";

/** Throws a Failure where the data is another's, or in use by anyone but the instance. */
export async function refuseOthers(
  instance: Instance,
  directories: string[],
): Promise<void> {
  await refuseForeignInstance(instance, { all: true });
  refuseLinks(instance);
  if (await askGateway(instance.home, "status")) {
    const message = "The MCP gateway runs, which has the memory bank";
    const hint = "Stop it first: claudy mcp stop";
    throw new Failure("busy", message, { hint });
  }
  await refuseUsers(instance, directories);
  refuseWriters(directories);
}

/** The mover sees nothing of what a link leads to. */
function refuseLinks({ home }: Pick<Instance, "home">): void {
  for (const name of backupParts) {
    const path = join(home.home, name);
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (!stat || stat.isDirectory()) continue;
    const what = stat.isSymbolicLink() ? "a link" : "not a directory";
    throw new Failure("unsafe", `"${path}" is ${what}`, {
      hint: "Put the directory itself there, or move it away.",
    });
  }
}

/** Throws a `busy` Failure for other containers that can write to the data. */
export async function refuseUsers(
  { docker, prefix, hostHome, names }: Pick<
    Instance,
    "docker" | "prefix" | "hostHome" | "names"
  >,
  directories: string[],
): Promise<void> {
  const volumes: string[] = Object.values(names.volumes);
  const isUsed = (source: string) =>
    isWithin(hostHome.home, source) ||
    directories.some((path) => isWithin(source, path));
  const users = (await docker.listContainers())
    .filter(({ Labels, Mounts }) =>
      Labels[label.instance] !== prefix &&
      Mounts.some(({ Name = "", Source, RW }) =>
        RW && (volumes.includes(Name) || (Source && isUsed(Source)))
      )
    )
    .map(({ Names }) => (Names[0] ?? "").slice(1));
  if (users.length === 0) return;
  throw new Failure("busy", `In use by containers: ${users.join(", ")}`, {
    hint: `Stop them first: docker stop ${users.join(" ")}`,
  });
}

/** Throws a `busy` Failure for processes that have a file open to write to it. */
export function refuseWriters(directories: string[]): void {
  const found = [...openForWriting(directories), ...locked(directories)];
  if (found.length === 0) return;
  throw new Failure("busy", `Being written to: ${found.join(", ")}`, {
    hint: "Stop what writes to it first.",
  });
}

/** Of the processes that may be looked at: one's own, and for root all. */
function openForWriting(directories: string[]): string[] {
  const processes = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  return processes.flatMap((pid) =>
    unlessGone(() => readdirSync(`/proc/${pid}/fd`)).flatMap((fd) =>
      unlessGone(() => {
        const path = readlinkSync(`/proc/${pid}/fd/${fd}`);
        if (!directories.some((within) => isWithin(path, within))) return [];
        const text = readFileSync(`/proc/${pid}/fdinfo/${fd}`, "utf8");
        const flags = /^flags:\s+(\d+)$/m.exec(text)?.[1] ?? "";
        const command = readFileSync(`/proc/${pid}/comm`, "utf8").trim();
        // O_ACCMODE: 0 is reading alone.
        const writes = (Number.parseInt(flags, 8) & 3) !== 0;
        return writes ? [`${path} (${command}, ${pid})`] : [];
      })
    )
  );
}

/** A process may end at any moment, and others' are not shown. */
function unlessGone(look: () => string[]): string[] {
  try {
    return look();
  } catch {
    return [];
  }
}

/** SQLite files with a lock on them: the kernel lists those of all processes. */
function locked(directories: string[]): string[] {
  const locks = readFileSync("/proc/locks", "utf8")
    .matchAll(/[\da-f]+:[\da-f]+:(\d+)/g);
  const inodes = new Set([...locks].map(([, inode]) => Number(inode)));
  return directories.filter((directory) => existsSync(directory))
    .flatMap((directory) =>
      readdirSync(directory).map((name) => join(directory, name))
    )
    .filter((path) =>
      /\.sqlite3?(-\w+)?$/.test(path) && inodes.has(lstatSync(path).ino)
    )
    .map((path) => `${path} (locked)`);
}

/** Throws a `busy` Failure while workers run. */
export async function refuseWorkers(
  instance: Parameters<typeof liveWorkers>[0],
): Promise<void> {
  const live = await liveWorkers(instance);
  if (live.length === 0) return;
  throw new Failure("busy", `Workers run: ${live.join(", ")}`, {
    hint: "Stop them first: coordinator stop-all",
  });
}
