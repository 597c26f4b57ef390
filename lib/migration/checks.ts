// Checks before data is moved: it belongs to this instance and is not in use.

import {
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
} from "node:fs";
import { join } from "node:path";
import { hasProc } from "../std/proc.ts";
import { Failure } from "../std/errors.ts";
import { isWithin } from "../std/hostpath.ts";
import type { Instance } from "../instance/instance.ts";
import { label } from "../instance/labels.ts";
import { refuseForeignInstance } from "../instance/ownership.ts";
import { askGateway } from "../mcp/client.ts";
import { liveWorkers } from "../worker/workers.ts";
import { sharedConfig } from "./conversations.ts";
import { moversEnd } from "./mover-lock.ts";
import { backupParts, sessionsPart } from "./parts.ts";

/** Throws a Failure if the data belongs to another instance, or is in use. */
export async function refuseOthers(
  instance: Instance,
  directories: string[],
): Promise<void> {
  await refuseForeignInstance(instance, { all: true });
  refuseLinks(instance);
  if (await askGateway(instance.home, "status")) {
    const message = "The MCP gateway is running and uses the memory bank";
    const hint = "Stop it first: claudy mcp stop";
    throw new Failure("busy", message, { hint });
  }
  await refuseUsers(instance, directories);
  try {
    refuseWriters(directories);
  } catch {
    await moversEnd(instance);
    refuseWriters(directories);
  }
}

/** The mover cannot follow links. */
function refuseLinks({ home }: Pick<Instance, "home">): void {
  for (const name of [...backupParts, `${sessionsPart}/${sharedConfig}`]) {
    const path = join(home.home, name);
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (!stat || stat.isDirectory()) continue;
    const what = stat.isSymbolicLink() ? "a link" : "not a directory";
    throw new Failure("unsafe", `"${path}" is ${what}`, {
      hint: "Replace it with the directory itself, or move it away.",
    });
  }
}

/** Throws a `busy` Failure if other containers can write to the data. */
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

/** Throws a `busy` Failure if processes have files open for writing. */
export function refuseWriters(directories: string[]): void {
  if (!hasProc()) return; // the copy is compared with the source afterwards
  const found = [...openForWriting(directories), ...locked(directories)];
  if (found.length === 0) return;
  throw new Failure("busy", `Being written to: ${found.join(", ")}`, {
    hint: "Stop what writes to it first.",
  });
}

/** Only processes that this user may inspect; root may inspect all. */
function openForWriting(directories: string[]): string[] {
  const processes = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  return processes.flatMap((pid) =>
    readOrEmpty(() => readdirSync(`/proc/${pid}/fd`)).flatMap((fd) =>
      readOrEmpty(() => {
        const path = readlinkSync(`/proc/${pid}/fd/${fd}`);
        if (!directories.some((within) => isWithin(path, within))) return [];
        const text = readFileSync(`/proc/${pid}/fdinfo/${fd}`, "utf8");
        const flags = /^flags:\s+(\d+)$/m.exec(text)?.[1] ?? "";
        const command = readFileSync(`/proc/${pid}/comm`, "utf8").trim();
        // O_ACCMODE: 0 is read-only.
        const writes = (Number.parseInt(flags, 8) & 3) !== 0;
        return writes ? [`${path} (${command}, ${pid})`] : [];
      })
    )
  );
}

/** A process may end at any moment, and others may not be readable. */
function readOrEmpty(look: () => string[]): string[] {
  try {
    return look();
  } catch {
    return [];
  }
}

/** SQLite files with a lock; /proc/locks lists the locks of all processes. */
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

/** Throws a `busy` Failure if workers run. */
export async function refuseWorkers(
  instance: Parameters<typeof liveWorkers>[0],
): Promise<void> {
  const live = await liveWorkers(instance);
  if (live.length === 0) return;
  throw new Failure("busy", `Workers are running: ${live.join(", ")}`, {
    hint: "Stop them first: claudy stop --all",
  });
}
