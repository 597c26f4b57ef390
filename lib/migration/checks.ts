// What has to be so before data is moved: nobody writes to it, and there is room.

import {
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statfsSync,
} from "node:fs";
import { join } from "node:path";
import { Failure } from "../std/errors.ts";
import { isWithin } from "../std/hostpath.ts";
import type { Instance } from "../instance/instance.ts";
import { label } from "../instance/labels.ts";
import { askGateway } from "../mcp/client.ts";
import { binarySize } from "../std/units.ts";
import { backupParts } from "./parts.ts";

/**
 * Throws an `unsafe` Failure for a link or a file in the place of a directory: the
 * mover sees nothing of what a link leads to.
 */
export function refuseLinks({ home }: Instance): void {
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

/** Throws an `unsafe` Failure where directories cannot be put in place by a rename. */
export function refuseOtherDisks({ home }: Instance): void {
  const device = lstatSync(home.home).dev;
  for (const path of [home.backups, home.migration]) {
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (!stat || stat.dev === device) continue;
    throw new Failure("unsafe", `"${path}" is on another disk than the home`, {
      hint: "Unmount it, or move it to where the home is.",
    });
  }
}

/**
 * Throws a `busy` Failure for containers of others that have the data mounted, or
 * the volumes.
 */
export async function refuseUsers(
  instance: Instance,
  directories: string[],
): Promise<void> {
  const { docker, prefix, hostHome, names } = instance;
  const volumes = Object.values(names.volumes);
  const users = (await docker.listContainers())
    .filter(({ Labels, Mounts }) =>
      Labels[label.instance] !== prefix &&
      Mounts.some(({ Name, Source, RW }) =>
        // A reader does no harm.
        RW && (volumes.includes(Name ?? "") ||
          (Source &&
            (isWithin(hostHome.home, Source) ||
              directories.some((path) => isWithin(Source, path)))))
      )
    )
    .map(({ Names }) => (Names[0] ?? "").slice(1));
  if (users.length === 0) return;
  throw new Failure("busy", `In use by containers: ${users.join(", ")}`, {
    hint: `Stop them first: docker stop ${users.join(" ")}`,
  });
}

/** Throws a `busy` Failure where MCP servers may write to the memory bank. */
export async function refuseGateway({ home }: Instance): Promise<void> {
  if (!await askGateway(home, "status")) return;
  throw new Failure("busy", "The MCP gateway runs, which has the memory bank", {
    hint: "Stop it first: claudy mcp stop",
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
  const found: string[] = [];
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      for (const fd of readdirSync(`/proc/${pid}/fd`)) {
        const path = readlinkSync(`/proc/${pid}/fd/${fd}`);
        if (!directories.some((directory) => isWithin(path, directory))) {
          continue;
        }
        const text = readFileSync(`/proc/${pid}/fdinfo/${fd}`, "utf8");
        const flags = Number.parseInt(
          /^flags:\s+(\d+)$/m.exec(text)?.[1] ?? "",
          8,
        );
        const command = readFileSync(`/proc/${pid}/comm`, "utf8").trim();
        // O_ACCMODE: 0 is reading alone.
        if ((flags & 3) !== 0) found.push(`${path} (${command}, ${pid})`);
      }
    } catch {
      // It has ended, or is another user's.
    }
  }
  return found;
}

/** SQLite files with a lock on them: the kernel tells those of all processes. */
function locked(directories: string[]): string[] {
  const locks = new Set(
    readFileSync("/proc/locks", "utf8").split("\n")
      .flatMap((line) => /[\da-f]+:[\da-f]+:(\d+)/.exec(line)?.[1] ?? []),
  );
  return directories.filter((directory) => existsSync(directory))
    .flatMap((directory) =>
      readdirSync(directory).map((name) => join(directory, name))
    )
    .filter((path) =>
      /\.sqlite3?(-\w+)?$/.test(path) && locks.has(`${lstatSync(path).ino}`)
    )
    .map((path) => `${path} (locked)`);
}

export interface Room {
  /** A path on the file system. */
  at: string;
  neededBytes: number;
  freeBytes: number;
}

/** Blocks, directories and what else a copy takes besides its bytes. */
const spareShare = 0.05;
const spareBytes = 1e6;

/** What a move needs and has, for each file system that it writes to. */
export async function roomFor(
  { docker, home }: Instance,
  { backupBytes, volumeBytes }: { backupBytes: number; volumeBytes: number },
): Promise<Room[]> {
  const { DockerRootDir } = await docker.info();
  const wanted: [string, number][] = [
    [home.home, backupBytes],
    // An engine elsewhere is asked for nothing: it says when it is full.
    ...(existsSync(DockerRootDir)
      ? [[DockerRootDir, volumeBytes] as [string, number]]
      : []),
  ];
  const rooms = new Map<string, Room>();
  for (const [at, bytes] of wanted) {
    const device = String(lstatSync(at).dev);
    const { bavail, bsize } = statfsSync(at);
    const needed = bytes === 0 ? 0 : bytes * (1 + spareShare) + spareBytes;
    const room = rooms.get(device) ??
      { at, neededBytes: 0, freeBytes: bavail * bsize };
    room.neededBytes += Math.ceil(needed);
    rooms.set(device, room);
  }
  return [...rooms.values()];
}

/** Throws a `resources` Failure with the figures where there is too little. */
export function refuseWithoutRoom(rooms: Room[]): void {
  const full = rooms.find(({ neededBytes, freeBytes }) =>
    neededBytes > freeBytes
  );
  if (!full) return;
  throw new Failure(
    "resources",
    `Too little room at ${full.at}: ${binarySize(full.neededBytes)} are ` +
      `needed, ${binarySize(full.freeBytes)} free`,
    { hint: "Make room, then run it again. Nothing was changed." },
  );
}
