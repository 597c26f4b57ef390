// Directories that a worker may have filled are removed and measured by rm and du:
// they follow no link, leave other file systems alone, need no memory for what they
// pass, and know no depth that is too much. Deno removes a tree by recursion and asks
// for the size of each file by itself (300,000: 20 s).

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { lstatSync, rmSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
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

/** Why a command failed, in its first line; undefined where it did not. */
async function failure(command: string[]): Promise<string | undefined> {
  const child = start(command, "pipe");
  const ended = once(child, "close");
  let first: string | undefined;
  if (child.stderr) {
    for await (const line of createInterface({ input: child.stderr })) {
      first ??= line.slice(0, 500);
    }
  }
  const [code] = await ended;
  return code === 0 ? undefined : first ?? `${command[0]} failed`;
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
  // By stdin: there may be more paths than a command line takes.
  const child = start([
    ...["du", "--summarize", "--bytes", "--one-file-system"],
    ...["--null", "--files0-from=-"],
  ], "ignore");
  const late = setTimeout(() => child.kill("SIGKILL"), measureMs);
  const ended = once(child, "close");
  child.stdin?.on("error", () => {}); // it has ended before it read all
  child.stdin?.end(paths.map((path) => `${path}\0`).join(""));
  try {
    let rest = "";
    child.stdout?.setEncoding("utf8");
    for await (const chunk of child.stdout ?? []) {
      const lines = (rest + chunk).split("\0");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        const tab = line.indexOf("\t");
        sizes.set(line.slice(tab + 1), Number(line.slice(0, tab)));
      }
    }
    await ended;
  } finally {
    clearTimeout(late);
  }
  return sizes;
}

function start(
  [file = "", ...args]: string[],
  stderr: "pipe" | "ignore",
): ChildProcess {
  return spawn(file, args, {
    stdio: [
      stderr === "ignore" ? "pipe" : "ignore",
      stderr === "ignore" ? "pipe" : "ignore",
      stderr,
    ],
    env: { ...process.env, LC_ALL: "C" },
  });
}
