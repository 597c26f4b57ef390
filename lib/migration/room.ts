// Checks that there is enough disk space for a move.

import { lstatSync, statfsSync, type Stats } from "node:fs";
import { dirname } from "node:path";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { binarySize } from "../std/units.ts";

export interface Room {
  /** A path on the file system. */
  at: string;
  neededBytes: number;
  freeBytes: number;
}

/** Allowance for blocks, directories and other overhead of a copy. */
const spareShare = 0.05;
const spareBytes = 1e6;

/** Required and free space of each file system that a move writes to. */
export async function roomFor(
  { docker, home }: Pick<Instance, "docker" | "home">,
  bytes: { home: number; volumes: number },
): Promise<Room[]> {
  const { DockerRootDir } = await docker.info();
  const rooms = new Map<number, Room>();
  for (
    const [at, copiedBytes] of [
      [home.home, bytes.home],
      [DockerRootDir, bytes.volumes],
    ] as const
  ) {
    // An engine on another machine cannot be checked; it reports a full disk
    // itself.
    const found = lookAt(at);
    if (!found) continue;
    const { bavail, bsize } = statfsSync(found.path);
    const room = rooms.get(found.stat.dev) ??
      { at: found.path, neededBytes: 0, freeBytes: bavail * bsize };
    if (copiedBytes > 0) {
      room.neededBytes += Math.ceil(
        copiedBytes * (1 + spareShare) + spareBytes,
      );
    }
    rooms.set(found.stat.dev, room);
  }
  return [...rooms.values()];
}

/**
 * A directory that may be looked at: `path`, or else the closest one above it. An engine
 * that maps users keeps its data below a directory that is closed to all but root.
 */
function lookAt(path: string): { path: string; stat: Stats } | undefined {
  try {
    const stat = lstatSync(path, { throwIfNoEntry: false });
    return stat && { path, stat };
  } catch (error) {
    if (path === "/") throw error;
    return lookAt(dirname(path));
  }
}

/** Throws a `resources` Failure with the numbers if there is too little space. */
export function refuseWithoutRoom(rooms: Room[]): void {
  const full = rooms.find(({ neededBytes, freeBytes }) =>
    neededBytes > freeBytes
  );
  if (!full) return;
  throw new Failure(
    "resources",
    `Not enough disk space at ${full.at}: ${binarySize(full.neededBytes)} ` +
      `needed, ${binarySize(full.freeBytes)} free`,
    { hint: "Free some space, then run it again. Nothing was changed." },
  );
}
