// What is not committed in a working tree. The configuration is that of the place, which is
// never one that a worker can write.

import { existsSync, rmSync } from "node:fs";
import { Failure } from "../../std/errors.ts";
import { Limits } from "./limits.ts";
import { gitList, type Place, run, type RunOptions } from "./git.ts";

export interface Change {
  path: string;
  untracked: boolean;
}

/** `place` has the working tree, a copy of its index, and `head` as its HEAD. */
export async function changesIn(
  place: Place,
  head: string | null,
  limits = new Limits(),
): Promise<Change[]> {
  const { index } = place;
  const read = async () => {
    if (head !== null && index !== undefined && !existsSync(index)) {
      await run(place, ["read-tree", head]);
    }
    return await gitList(place, [
      ...["status", "--porcelain", "-z", "--untracked-files=all"],
      ...["--no-renames", "--ignore-submodules=dirty"],
    ], {
      maxBytes: limits.listBytes,
      exceeded: () =>
        limits.exceeded("It has too many files that are not committed"),
    });
  };
  const entries = await read().catch((error) => {
    const isRefused = error instanceof Failure && error.kind === "unsafe";
    if (isRefused || index === undefined || !existsSync(index)) throw error;
    // It may be damaged, as after a power failure.
    rmSync(index);
    return read();
  });
  return entries.map((entry) => ({
    path: entry.slice(3),
    untracked: entry.startsWith("??"),
  }));
}

/**
 * Adds all files to the index of a place, but no repositories in it: git adds only the commit
 * of such a one, and fails if it has none. Returns their paths.
 */
export async function addAll(
  place: Place,
  options: RunOptions & { flags?: string[] } = {},
): Promise<string[]> {
  const found = await gitList(place, [
    ...["ls-files", "-z", "--others", "--exclude-standard"],
  ]);
  const nested = found.filter((path) => path.endsWith("/"))
    .map((path) => path.slice(0, -1));
  await run(place, [
    ...["add", "--all", ...(options.flags ?? [])],
    ...["--pathspec-from-file=-", "--pathspec-file-nul"],
  ], {
    ...options,
    input: [":(top)", ...nested.map((path) => `:(top,exclude,literal)${path}`)]
      .map((pathspec) => `${pathspec}\0`).join(""),
  });
  return nested;
}
