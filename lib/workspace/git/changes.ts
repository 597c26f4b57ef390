// What is not committed in a working tree. The configuration is that of the place, which is
// never one that a worker can write.

import { existsSync } from "node:fs";
import { gitList, type Place, run } from "./git.ts";

export interface Change {
  path: string;
  untracked: boolean;
}

/** `place` has the working tree, a copy of its index, and `head` as its HEAD. */
export async function changesIn(
  place: Place,
  head: string | null,
): Promise<Change[]> {
  if (head !== null && place.index !== undefined && !existsSync(place.index)) {
    await run(place, ["read-tree", head]);
  }
  const entries = await gitList(place, [
    ...["status", "--porcelain", "-z", "--untracked-files=all"],
    ...["--no-renames", "--ignore-submodules=dirty"],
  ]);
  return entries.map((entry) => ({
    path: entry.slice(3),
    untracked: entry.startsWith("??"),
  }));
}
