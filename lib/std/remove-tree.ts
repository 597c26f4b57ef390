// Directories that a worker may have filled are removed and measured by rm and du:
// they follow no link, leave other file systems alone, need no memory for what they
// pass, and know no depth that is too much. Deno removes a tree by recursion and asks
// for the size of each file by itself (300,000: 20 s).

import { lstatSync, rmSync } from "node:fs";
import process from "node:process";
import { Failure } from "./errors.ts";

/** Removes whatever has a name; a missing one is not an error. */
export async function removeTree(path: string): Promise<void> {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (!stat?.isDirectory()) return rmSync(path, { force: true });
  const remove = ["rm", "-rf", "--one-file-system", "--", path];
  if (!await failure(remove)) return;
  // Its owner may have closed a directory even to itself.
  await failure(["chmod", "-R", "u+rwX", "--", path]);
  const reason = await failure(remove);
  if (reason === undefined) return;
  throw new Failure("failed", `Cannot remove all of ${path}: ${reason}`, {
    hint: `What another user left there is theirs: sudo rm -r ${path}`,
  });
}

/** The first line of why a command failed; undefined if it did not. */
async function failure(command: string[]): Promise<string | undefined> {
  const $ = await shell();
  // rm prints a line for each file that it cannot remove.
  const { exitCode, stdout } =
    await $`${command} 2>&1 | { head -c 500; cat >/dev/null; }`;
  if (exitCode === 0) return undefined;
  return stdout.split("\n")[0] || `${command[0]} failed`;
}

/** As long as a person waits for sizes. */
const measureMs = 20_000;

/**
 * The sizes in bytes of what lies below each path, hard links counted once; those
 * that cannot be measured in time are missing.
 */
export async function measureTrees(
  paths: string[],
): Promise<Map<string, number>> {
  const sizes = new Map<string, number>();
  if (paths.length === 0) return sizes;
  const $ = await shell();
  // By stdin: there may be more paths than fit on a command line.
  const input = paths.map((path) => `${path}\0`).join("");
  const timeout = { timeout: measureMs, timeoutSignal: "SIGKILL" as const };
  const { stdout } = await $({
    input,
    ...timeout,
  })`exec du --summarize --bytes \
    --one-file-system --null --files0-from=- 2>/dev/null`;
  for (const line of stdout.split("\0").slice(0, -1)) {
    const tab = line.indexOf("\t");
    sizes.set(line.slice(tab + 1), Number(line.slice(0, tab)));
  }
  return sizes;
}

/** Loaded here: zx adds 50 ms to the start of a command, and few remove anything. */
async function shell() {
  const { $ } = await import("zx/core");
  const env = { ...process.env, LC_ALL: "C" };
  return $({ env, nothrow: true, quiet: true });
}
