// Copies the copy of a session for another one, as it is, with a branch of its own. It may be
// hostile, so it is changed as text only: no program of git opens it.

import {
  existsSync,
  lstatSync,
  mkdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import * as v from "valibot";
import { runProgram } from "../../std/program.ts";
import type { Host } from "./host.ts";
import { copyLive } from "./live-copy.ts";
import { isBranchName, readRefs } from "./refs.ts";

export const forkRequestSchema = v.object({
  do: v.literal("fork"),
  /** The copy to begin with. */
  tree: v.string(),
  /** The directory to create. */
  target: v.string(),
  /** The new branch. */
  branch: v.pipe(v.string(), v.check(isBranchName)),
  /** Whether a worker changes the files meanwhile. */
  live: v.boolean(),
});

export const forkResultSchema = v.object({
  /** Whether the file system shares the blocks of both. */
  shared: v.boolean(),
});

export async function fork(
  { tree, target, branch, live }: v.InferOutput<typeof forkRequestSchema>,
  host: Host,
): Promise<v.InferOutput<typeof forkResultSchema>> {
  const shared = await canShare(dirname(target), tree);
  await copyLive(tree, target, live, host);
  const gitDir = join(target, ".git");
  if (lstatSync(gitDir, { throwIfNoEntry: false })?.isDirectory()) {
    const { head, detached, branches } = readRefs(gitDir);
    const id = detached ?? (head === null ? undefined : branches[head]);
    // Of a program of git that runs in the other session.
    for (const name of ["index.lock", "HEAD.lock", "config.lock"]) {
      rmSync(join(gitDir, name), { force: true });
    }
    if (id !== undefined) {
      const ref = join(gitDir, "refs/heads", branch);
      mkdirSync(dirname(ref), { recursive: true });
      // The session may have put a pipe or a link there.
      rmSync(ref, { force: true });
      writeFileSync(ref, `${id}\n`);
    }
    rmSync(join(gitDir, "HEAD"), { force: true });
    writeFileSync(join(gitDir, "HEAD"), `ref: refs/heads/${branch}\n`);
  }
  return { shared };
}

/** Tries it with a file of our own, since each of the copy may be anything. */
async function canShare(directory: string, tree: string): Promise<boolean> {
  const [from, to] = ["share.from", "share.to"]
    .map((name) => join(directory, name)) as [string, string];
  if (!existsSync(tree)) return false;
  writeFileSync(from, "x".repeat(64 * 1024));
  const { exitCode } = await runProgram([
    ...["cp", "--reflink=always", "--", from, to],
  ]);
  for (const path of [from, to]) rmSync(path, { force: true });
  return exitCode === 0;
}
