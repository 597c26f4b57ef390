// Whether there is room for what a move copies.

import { lstatSync, statfsSync } from "node:fs";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { binarySize } from "../std/units.ts";

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
    // An engine elsewhere is asked for nothing: it says when it is full.
    const stat = lstatSync(at, { throwIfNoEntry: false });
    if (!stat) continue;
    const { bavail, bsize } = statfsSync(at);
    const room = rooms.get(stat.dev) ??
      { at, neededBytes: 0, freeBytes: bavail * bsize };
    if (copiedBytes > 0) {
      room.neededBytes += Math.ceil(
        copiedBytes * (1 + spareShare) + spareBytes,
      );
    }
    rooms.set(stat.dev, room);
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
