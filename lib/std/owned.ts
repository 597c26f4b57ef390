// Files under HAL9000_HOME belong to its owner, whoever writes them: the parent
// works as root, and must leave nothing that the owner cannot remove.

// Not by zx: it adds 50 ms to the start of each command.
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  chownSync,
  closeSync,
  fchownSync,
  fsyncSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { inDirectory } from "./directory.ts";
import { Failure } from "./errors.ts";
import { clearPlace } from "./plain-file.ts";

export interface Owner {
  uid: number;
  gid: number;
}

/** Who owns a path, or who would if it were made now. */
export function ownerOf(path: string): Owner {
  const { uid, gid } = statSync(path, { throwIfNoEntry: false }) ??
    { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  return { uid, gid };
}

/**
 * Makes a directory if it is not there, and sees to its mode; gives whether it
 * was made. Throws a `usage` Failure where something else has its name.
 */
export function ensureDirectory(
  path: string,
  mode: number,
  owner: Owner,
): boolean {
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    const stat = lstatSync(path);
    if (!stat.isDirectory()) {
      const what = stat.isSymbolicLink() ? "a link" : "not a directory";
      throw new Failure("usage", `"${path}" is ${what}`, {
        hint: "Move it away: a directory is wanted there.",
      });
    }
    const mayChange = isRoot() || stat.uid === process.getuid?.();
    if ((stat.mode & 0o777) !== mode && mayChange) chmodSync(path, mode);
    return false;
  }
  chmodSync(path, mode); // mkdir's mode is subject to the umask
  if (isRoot()) chownSync(path, owner.uid, owner.gid);
  return true;
}

/**
 * Writes a file whole: to a temporary neighbour, synced, then renamed, so that
 * a reader sees the old text or the new one and a crash leaves one of both.
 */
export function writeWhole(
  path: string,
  text: string | Uint8Array,
  owner: Owner,
  mode = 0o600,
): void {
  stageWhole(path, text, owner, { mode }).commit();
}

/**
 * The same in a directory that a worker owns, which may have laid a directory in
 * the file's place: it is moved aside.
 */
export function replaceWhole(
  path: string,
  text: string | Uint8Array,
  owner: Owner,
  options: { mode?: number; sync?: boolean } = {},
): void {
  const staged = stageWhole(path, text, owner, options);
  if (lstatSync(path, { throwIfNoEntry: false })?.isDirectory()) {
    clearPlace(path);
  }
  staged.commit();
}

/** A file that is written, and yet to take its place. */
export interface Staged {
  path: string;
  commit(): void;
  drop(): void;
}

/**
 * The first half of writeWhole(). The temporary neighbour is new and of no
 * foreseeable name: a worker that owns the directory cannot have laid a link
 * there for root to write through. Without `sync` a crash of the machine may
 * leave an empty file: for what is of no use after one.
 */
export function stageWhole(
  path: string,
  text: string | Uint8Array,
  owner: Owner,
  { mode = 0o600, sync = true } = {},
): Staged {
  const temporary = `${path}.${randomBytes(8).toString("hex")}.tmp`;
  const drop = () => rmSync(temporary, { force: true });
  const file = openSync(temporary, "wx", mode);
  try {
    try {
      writeFileSync(file, text);
      if (isRoot()) fchownSync(file, owner.uid, owner.gid);
      if (sync) fsyncSync(file);
    } finally {
      closeSync(file);
    }
  } catch (error) {
    drop();
    // An error of write(2) does not name its file.
    throw Object.assign(error as Error, { path });
  }
  return {
    path: temporary,
    commit: () => {
      try {
        renameSync(temporary, path);
      } catch (error) {
        drop();
        throw error;
      }
    },
    drop,
  };
}

/** Whether a name is that of a temporary neighbour: one that is old was left behind. */
export function isStaged(name: string): boolean {
  return /\.[0-9a-f]{16}\.tmp$/.test(name);
}

/** Makes a file where there is none; gives whether it did. */
export function writeNew(path: string, text: string, owner: Owner): boolean {
  const staged = stageWhole(path, text, owner, { sync: false });
  try {
    // Unlike a rename this does not replace, and nobody sees it empty.
    linkSync(staged.path, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    return false;
  } finally {
    staged.drop();
  }
}

/** Removes the oldest files of one extension until `count` are left. */
export function keepNewest(
  directory: string,
  extension: string,
  count: number,
): void {
  const files: { path: string; at: number }[] = [];
  inDirectory(directory, (opened) => {
    for (const { name } of opened.entries()) {
      if (!name.endsWith(extension)) continue;
      const stat = opened.stat(name);
      if (stat?.kind !== "file") continue;
      files.push({ path: join(directory, name), at: stat.mtimeMs });
    }
  });
  files.sort((a, b) => b.at - a.at);
  for (const { path } of files.slice(count)) rmSync(path, { force: true });
}

/** Opens a file for a child's output; `flags` are those of open(2). */
export function openForOutput(
  path: string,
  flags: "w" | "a",
  owner: Owner,
): number {
  const file = openSync(path, flags, 0o600);
  if (isRoot()) fchownSync(file, owner.uid, owner.gid);
  return file;
}

/** Gives a directory and all in it to `owner`, where root finds it another's. */
export function ensureOwner(directory: string, owner: Owner): void {
  const { uid, gid } = statSync(directory);
  if (!isRoot() || (uid === owner.uid && gid === owner.gid)) return;
  giveTree(directory, owner);
}

/** Gives away a directory and all in it. */
export function giveTree(directory: string, owner: Owner): void {
  // A worker may have filled it to any depth; no link is followed.
  const { status, stderr } = spawnSync(
    "chown",
    ["-RhP", `${owner.uid}:${owner.gid}`, "--", directory],
    { encoding: "utf8", stdio: ["ignore", "ignore", "pipe"] },
  );
  if (status === 0) return;
  throw new Failure(
    "failed",
    `Cannot give ${directory} to uid ${owner.uid}: ${stderr.split("\n")[0]}`,
  );
}

/** Only root can give away; for anyone else what they make is theirs already. */
function isRoot(): boolean {
  return process.getuid?.() === 0;
}
