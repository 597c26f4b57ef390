// Copies a tree that a worker changes meanwhile, and may change with malice. It is copied
// while the worker goes on, then once more what has changed since; only the last difference
// is taken while the worker stands still. See ADR 46.

import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { Failure } from "../../std/errors.ts";
import { type ProgramOptions, runProgram } from "../../std/program.ts";
import type { Host } from "./host.ts";
import { showWritten } from "./progress.ts";

/** What find prints of an entry. */
interface State {
  isDirectory: boolean;
  isFile: boolean;
  mode: string;
  bytes: number;
  /** What cp gives to the copy as well. */
  copied: string;
  inode: string;
  /** The kernel changes the ctime with all else, and no program can set it. */
  identity: string;
  ctime: string;
}

/** By the path in the tree, directories first; the tree itself is "". */
type States = Map<string, State>;

/** Before the last one. The second is short, and takes what has changed during the first. */
const liveRounds = 2;

/**
 * Makes `target` what `tree` is at one moment, within `host.whileFrozen`. What a program
 * changes until then is copied again, also if it sets times back. Without `live`, nothing
 * changes the tree. A round before takes `minLimitMs` at most, and longer for much data.
 */
export async function copyLive(
  tree: string,
  target: string,
  live: boolean,
  host: Host,
  minLimitMs = 60_000,
): Promise<void> {
  mkdirSync(target, { mode: 0o700 });
  let copied = await statesIn(target);
  let before: States = new Map();
  let since = "";
  for (let round = 0; live && round < liveRounds; round++) {
    const nextSince = await ctimeNow(dirname(target));
    await cleanPages(tree, since);
    const now = await statesIn(tree, { changes: true });
    const change = changeOf({ before, since, copied, now });
    await apply(change, { tree, target, minLimitMs }, host);
    [before, since, copied] = [now, nextSince, await statesIn(target)];
  }
  const change = await host.whileFrozen(async () => {
    const now = await statesIn(tree);
    const change = changeOf({ before, since, copied, now });
    await apply(change, { tree, target }, host);
    return change;
  });
  for (const [mode, paths] of change.modes) {
    await must(target, ["chmod", mode], paths);
  }
}

/**
 * Writes what is in memory only of files that were changed since. A process that has mapped
 * a file can change a page of it until then without a new ctime. Others were written before.
 */
async function cleanPages(tree: string, since: string): Promise<void> {
  if (since !== "") {
    const changed = [...await statesIn(tree, { changes: true })]
      .filter(([, { isFile, ctime }]) => isFile && ctime >= since)
      .map(([path]) => path);
    if (changed.length < maxSynced) {
      return void await xargs(tree, ["sync", "--data"], changed);
    }
  }
  await runProgram(["sync", "--file-system", tree]);
}

/** For more of them, all of the file system takes less time. */
const maxSynced = 1000;

/** Of the clock that the file system uses. */
async function ctimeNow(directory: string): Promise<string> {
  const path = join(directory, "now");
  writeFileSync(path, "");
  const state = (await statesIn(path)).get("");
  rmSync(path);
  return state?.ctime ?? "";
}

const maxListBytes = 512 * 1024 ** 2;

/** Throws a Failure if something cannot be read, unless the tree changes meanwhile. */
async function statesIn(
  tree: string,
  { changes = false } = {},
): Promise<States> {
  // Names need not be UTF-8.
  const { exitCode, stdout, stderr } = await runProgram([
    ...["find", tree, "-printf", "%P\\0%y\\0%m\\0%s\\0%T@\\0%i\\0%C@\\0"],
  ], { encoding: "latin1", maxLength: maxListBytes });
  if (stdout.length >= maxListBytes) {
    throw new Failure("failed", "It has too many files");
  }
  if (exitCode !== 0 && !changes) throw failureOf(stderr, "find");
  const states: States = new Map();
  const fields = stdout.split("\0");
  for (let at = 0; at + 6 < fields.length; at += 7) {
    const [path, kind, mode, size, mtime, inode, ctime] = fields
      .slice(at, at + 7) as [string, ...string[]] & { length: 7 };
    const isDirectory = kind === "d";
    states.set(path, {
      isDirectory,
      isFile: kind === "f",
      mode: mode ?? "",
      bytes: isDirectory ? 0 : Number(size),
      copied: isDirectory ? "d" : `${kind} ${mode} ${size} ${mtime}`,
      inode: inode ?? "",
      identity: `${inode} ${ctime}`,
      ctime: ctime ?? "",
    });
  }
  return states;
}

interface Change {
  /** Paths to remove from the copy, and which of them are directories. */
  remove: string[];
  directories: string[];
  /** Directories of the copy in which their owner cannot write yet. */
  open: string[];
  /** Paths to copy with all that is in them. */
  copy: string[];
  /** Directories of the copy by the mode that they must get at last. */
  modes: Map<string, string[]>;
  /** How much that is. */
  files: number;
  bytes: number;
}

/**
 * What makes a copy the same as `now`. `before` was read before the copy was made, and not
 * earlier than `since`.
 */
function changeOf({ before, since, copied, now }: {
  before: States;
  since: string;
  copied: States;
  now: States;
}): Change {
  const changed = new Set<string>();
  const isCovered = (path: string) => {
    for (let at = above(path); at !== ""; at = above(at)) {
      if (changed.has(at)) return true;
    }
    return false;
  };
  for (const [path, state] of now) {
    if (path === "" || isCovered(path)) continue;
    const own = copied.get(path);
    const then = before.get(path);
    const isSame = own?.copied === state.copied &&
      (state.isDirectory ||
        then?.identity === state.identity && then.copied === state.copied &&
          state.ctime < since);
    if (!isSame) changed.add(path);
  }
  for (const path of copied.keys()) {
    if (path !== "" && !now.has(path) && !isCovered(path)) changed.add(path);
  }
  // cp keeps hard links only among what it copies at once.
  const inodes = new Set<string>();
  for (const [path, { isDirectory, inode }] of now) {
    const isCopied = changed.has(path) || isCovered(path);
    if (isCopied && !isDirectory) inodes.add(inode);
  }
  for (const [path, { isDirectory, inode }] of now) {
    if (isDirectory || !inodes.has(inode) || isCovered(path)) continue;
    changed.add(path);
  }
  const remove = [...changed].filter((path) => copied.has(path));
  const open = new Set(
    [...changed].map(above).filter((path) => !isWritable(copied.get(path))),
  );
  const modes = new Map<string, string[]>();
  let files = 0;
  let bytes = 0;
  for (const [path, state] of now) {
    if (changed.has(path) || isCovered(path)) {
      files++;
      bytes += state.bytes;
    } else if (
      state.isDirectory &&
      (copied.get(path)?.mode !== state.mode || open.has(path))
    ) {
      const paths = modes.get(state.mode);
      if (paths) paths.push(path);
      else modes.set(state.mode, [path]);
    }
  }
  return {
    remove,
    directories: remove.filter((path) => copied.get(path)?.isDirectory),
    open: [...open],
    copy: [...changed].filter((path) => now.has(path)),
    modes,
    files,
    bytes,
  };
}

const above = (path: string) =>
  path.slice(0, Math.max(path.lastIndexOf("/"), 0));

/** Whether the owner can replace what is in a directory. */
const isWritable = (state: State | undefined) =>
  state !== undefined && (parseInt(state.mode, 8) & 0o300) === 0o300;

/**
 * What is missing because it changes at this moment, or takes too long, is copied in the next
 * round.
 */
async function apply(
  { remove, directories, open, copy, files, bytes }: Change,
  { tree, target, minLimitMs }: {
    tree: string;
    target: string;
    /** For a tree that changes meanwhile. */
    minLimitMs?: number;
  },
  { log }: Host,
): Promise<void> {
  await must(target, ["chmod", "u+rwx"], open);
  await must(target, ["chmod", "-R", "u+rwX"], directories);
  await must(target, ["rm", "-rf"], remove);
  if (copy.length === 0) return;
  const changes = minLimitMs !== undefined;
  const command = ["cp", "-a", "--reflink=auto", "--parents", "-t", target];
  const { exitCode, stderr } = await showWritten(
    log,
    { what: "Copying", bytes },
    (started) =>
      xargs(tree, command, copy, {
        started,
        // A file may grow as fast as it is read, and a pipe may wait for ever.
        timeoutMs: changes ? minLimitMs + maxCopyMs(bytes, files) : undefined,
      }),
  );
  const failure = failureOf(stderr, "cp");
  if (exitCode !== 0 && (!changes || failure.kind === "resources")) {
    throw failure;
  }
}

/** More than the slowest disks take. */
const maxCopyMs = (bytes: number, files: number) => bytes / 5000 + files * 10;

async function must(directory: string, command: string[], paths: string[]) {
  const { exitCode, stderr } = await xargs(directory, command, paths);
  if (exitCode !== 0) throw failureOf(stderr, command[0] ?? "");
}

/** Paths as runProgram() reads them in Latin 1; the directory itself is "". */
async function xargs(
  directory: string,
  command: string[],
  paths: string[],
  options: ProgramOptions = {},
) {
  if (paths.length === 0) return { exitCode: 0, stderr: "" };
  return await runProgram([
    ...["env", `--chdir=${directory}`, "xargs", "-0", ...command, "--"],
  ], {
    input: paths.map((path) => `./${path}\0`).join(""),
    encoding: "latin1",
    ...options,
  });
}

function failureOf(stderr: string, program: string): Failure {
  const [line = ""] = stderr.split("\n");
  const full = /No space left on device/.test(stderr);
  return new Failure(
    full ? "resources" : "failed",
    line || `${program} failed`,
  );
}
