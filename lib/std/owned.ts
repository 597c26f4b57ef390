// Writes files under HAL9000_HOME so that they belong to its owner: the parent runs as
// root and must not leave files that the owner cannot remove.

// Not zx: loading it would add 50 ms to the start of each command.
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  chownSync,
  closeSync,
  fchownSync,
  fsyncSync,
  lchownSync,
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
import { clearPath } from "./plain-file.ts";

export interface Owner {
  uid: number;
  gid: number;
}

/** The owner of a path; the current user if there is no such path. */
export function ownerOf(path: string): Owner {
  const { uid, gid } = statSync(path, { throwIfNoEntry: false }) ??
    { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  return { uid, gid };
}

/**
 * Creates a directory if it is missing, and sets its mode. Returns whether it was
 * created. Throws a `usage` Failure if the path is not a directory.
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
        hint: "Move it away: a directory is expected there.",
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
 * Writes a file atomically: to a temporary file beside it, which is synced and renamed.
 * Readers see the old or the new text, also after a crash.
 */
export function writeAtomic(
  path: string,
  text: string | Uint8Array,
  owner: Owner,
  mode = 0o600,
): void {
  stageFile(path, text, owner, { mode }).commit();
}

/**
 * Like writeAtomic(), for a directory that a worker can write to: if the worker has
 * created a directory with the file's name, that is moved aside.
 */
export function replaceFile(
  path: string,
  text: string | Uint8Array,
  owner: Owner,
  options: { mode?: number; sync?: boolean } = {},
): void {
  const staged = stageFile(path, text, owner, options);
  if (lstatSync(path, { throwIfNoEntry: false })?.isDirectory()) {
    clearPath(path);
  }
  staged.commit();
}

/** A temporary file that has been written but not yet renamed. */
export interface Staged {
  path: string;
  commit(): void;
  drop(): void;
}

/**
 * The first half of writeAtomic(). The temporary file is created under a random name, so
 * a worker that owns the directory cannot make root write through a link. Without `sync`
 * a crash of the machine may leave an empty file; use this only for files that are not
 * needed after a crash.
 */
export function stageFile(
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
    // Errors of write(2) do not name the file.
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

/** Whether a name is that of a temporary file; an old one was left by a crash. */
export function isStaged(name: string): boolean {
  return /\.[0-9a-f]{16}\.tmp$/.test(name);
}

/**
 * Creates a directory where a worker can write. If it replaces the directory by a link, the
 * link is not followed. Throws EEXIST.
 */
export function createDirectory(path: string, owner: Owner): void {
  mkdirSync(path, { mode: 0o755 });
  if (isRoot()) lchownSync(path, owner.uid, owner.gid);
}

/** Creates an empty file where a worker can write. Throws EEXIST. */
export function createFile(path: string, owner: Owner): void {
  const file = openSync(path, "wx", 0o644);
  try {
    if (isRoot()) fchownSync(file, owner.uid, owner.gid);
  } finally {
    closeSync(file);
  }
}

/** Creates a file if it is missing; returns whether it was created. */
export function writeNew(path: string, text: string, owner: Owner): boolean {
  const staged = stageFile(path, text, owner, { sync: false });
  try {
    // Unlike rename(2), link(2) does not replace a file. Readers never see it empty.
    linkSync(staged.path, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    return false;
  } finally {
    staged.drop();
  }
}

/** Keeps the newest `count` files with an extension, and removes the others. */
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

/** Opens a file for the output of a child process. */
export function openForOutput(
  path: string,
  flags: "w" | "a",
  owner: Owner,
): number {
  const file = openSync(path, flags, 0o600);
  if (isRoot()) fchownSync(file, owner.uid, owner.gid);
  return file;
}

/** As root, changes the owner of a directory tree if the directory has another owner. */
export function ensureOwner(directory: string, owner: Owner): void {
  const { uid, gid } = statSync(directory);
  if (!isRoot() || (uid === owner.uid && gid === owner.gid)) return;
  chownTree(directory, owner);
}

/** Changes the owner of a directory and everything in it. */
export function chownTree(directory: string, owner: Owner): void {
  // A worker may have created a tree of any depth; links are not followed.
  const { status, stderr } = spawnSync(
    "chown",
    ["-RhP", `${owner.uid}:${owner.gid}`, "--", directory],
    { encoding: "utf8", stdio: ["ignore", "ignore", "pipe"] },
  );
  if (status === 0) return;
  throw new Failure(
    "failed",
    `Cannot chown ${directory} to uid ${owner.uid}: ${stderr.split("\n")[0]}`,
  );
}

/** Only root can change owners; other users already own the files they create. */
function isRoot(): boolean {
  return process.getuid?.() === 0;
}
