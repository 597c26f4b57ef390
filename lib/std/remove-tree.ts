// Removes and measures directories that a worker may have filled, with rm and du: they
// follow no links, stay on one file system, need little memory, and have no depth limit.
// Deno removes a tree recursively and calls stat for each file (300,000: 20 s).

import { lstatSync, rmSync } from "node:fs";
import process from "node:process";
import { Failure } from "./errors.ts";

/** Removes a file or a directory tree; a missing path is not an error. */
export async function removeTree(path: string): Promise<void> {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (!stat?.isDirectory()) return rmSync(path, { force: true });
  const remove = ["rm", "-rf", "--one-file-system", "--", path];
  if (!await failureReason(remove)) return;
  // The owner may have removed their own permissions from a directory.
  await failureReason(["chmod", "-R", "u+rwX", "--", path]);
  const reason = await failureReason(remove);
  if (reason === undefined) return;
  throw new Failure("failed", `Cannot remove all of ${path}: ${reason}`, {
    hint: `Files of another user need root: sudo rm -r ${path}`,
  });
}

/** The first line of why a command failed; undefined if it did not. */
async function failureReason(command: string[]): Promise<string | undefined> {
  const $ = await shell();
  // rm prints a line for each file that it cannot remove.
  const { exitCode, stdout } =
    await $`${command} 2>&1 | { head -c 500; cat >/dev/null; }`;
  if (exitCode === 0) return undefined;
  return stdout.split("\n")[0] || `${command[0]} failed`;
}

/** How long a user may have to wait for sizes. */
const measureMs = 20_000;

/**
 * The size in bytes of the tree at each path, with hard links counted once. Paths that
 * cannot be measured in time are missing from the result.
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
  const du = $({
    input,
    ...timeout,
  })`exec du --summarize --bytes \
    --one-file-system --null --files0-from=- 2>/dev/null`;
  du.child?.stdin?.on("error", () => {}); // du has ended before it read all paths
  du.child?.stdout?.setEncoding("utf8"); // zx would decode each chunk on its own
  const { stdout } = await du;
  for (const line of stdout.split("\0").slice(0, -1)) {
    const tab = line.indexOf("\t");
    sizes.set(line.slice(tab + 1), Number(line.slice(0, tab)));
  }
  return sizes;
}

/** Loaded here: zx adds 50 ms to the start of a command, and few remove anything. */
async function shell() {
  const { $ } = await import("./zx.ts");
  const env = { ...withoutBashSettings(process.env), LC_ALL: "C" };
  leaveRemovedDirectory();
  return $({ cwd: "/", env, nothrow: true, quiet: true });
}

/** Without BASH_ENV, whose file bash would run, and functions, which could replace rm. */
function withoutBashSettings(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(env).filter(([name]) => !/^BASH_(ENV$|FUNC_)/.test(name)),
  );
}

/** zx fails, and no program starts, in a working directory that has been removed. */
function leaveRemovedDirectory(): void {
  try {
    process.cwd();
  } catch {
    process.chdir("/");
  }
}
