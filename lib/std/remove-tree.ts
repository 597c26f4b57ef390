// Removes and measures directories that a worker may have filled, with rm and du: they
// follow no links, stay on one file system, need little memory, and have no depth limit.
// Deno removes a tree recursively and calls stat for each file (300,000: 20 s).

import { lstatSync, rmSync } from "node:fs";
import { Failure } from "./errors.ts";
import { hasProc } from "./proc.ts";
import { runProgram } from "./program.ts";

/** Removes a file or a directory tree; a missing path is not an error. */
export async function removeTree(path: string): Promise<void> {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (!stat?.isDirectory()) return rmSync(path, { force: true });
  const ownFileSystem = hasProc() ? "--one-file-system" : "-x"; // GNU or BSD
  const remove = ["rm", "-rf", ownFileSystem, "--", path];
  if (!await failureReason(remove)) return;
  // The owner may have removed their own permissions from a directory.
  await failureReason(["chmod", "-R", "u+rwX", "--", path]);
  const reason = await failureReason(remove);
  if (reason === undefined) return;
  throw new Failure("failed", `Cannot remove all of ${path}: ${reason}`, {
    hint: `Files of another user need root: sudo rm -r ${path}`,
  });
}

/** The first error line of a failed command; undefined if it succeeded. */
async function failureReason(command: string[]): Promise<string | undefined> {
  const { exitCode, stderr } = await runProgram(command);
  if (exitCode === 0) return undefined;
  return stderr.split("\n")[0] || `${command[0]} failed`;
}

/** How long a user may have to wait for sizes. */
const measureMs = 20_000;

/**
 * What the tree at each path takes on disk, in bytes, with hard links counted once, and
 * without the holes of sparse files. Paths that cannot be measured in time are missing from
 * the result.
 */
export async function measureTrees(
  paths: string[],
  timeoutMs = measureMs,
): Promise<Map<string, number>> {
  const sizes = new Map<string, number>();
  const deadline = Date.now() + timeoutMs;
  const measure = hasProc() ? measureByGnu : measureByBsd;
  for (let rest = paths; rest.length > 0;) {
    const leftMs = deadline - Date.now();
    if (leftMs <= 0) break;
    // One tree with too many files must not hide the sizes of all others.
    const isOver = await measure(
      rest,
      rest.length === 1 ? leftMs : leftMs / 2,
      sizes,
    );
    if (!isOver) break;
    rest = rest.slice(rest.findLastIndex((path) => sizes.has(path)) + 2);
  }
  return sizes;
}

/** Measures the paths in this order; returns whether the time was over before it was done. */
async function measureByGnu(
  paths: string[],
  timeoutMs: number,
  sizes: Map<string, number>,
): Promise<boolean> {
  // Through stdin: there may be too many paths for a command line.
  const { stdout, exitCode } = await runProgram([
    ...["du", "--summarize", "--block-size=1", "--one-file-system"],
    ...["--null", "--files0-from=-"],
  ], {
    input: paths.map((path) => `${path}\0`).join(""),
    timeoutMs,
  });
  for (const line of stdout.split("\0").slice(0, -1)) {
    const tab = line.indexOf("\t");
    sizes.set(line.slice(tab + 1), Number(line.slice(0, tab)));
  }
  return exitCode === null;
}

/** BSD's du has neither bytes nor a list of paths in its input. */
async function measureByBsd(
  paths: string[],
  limitMs: number,
  sizes: Map<string, number>,
): Promise<boolean> {
  const deadline = Date.now() + limitMs;
  for (const path of paths) {
    const timeoutMs = deadline - Date.now();
    if (timeoutMs <= 0) return true;
    const du = ["du", "-skx", "--", path];
    const { stdout, exitCode } = await runProgram(du, { timeoutMs });
    const kilobytes = /^\d+/.exec(stdout.trim())?.[0];
    if (kilobytes) sizes.set(path, Number(kilobytes) * 1024);
    if (exitCode === null) return true;
  }
  return false;
}
