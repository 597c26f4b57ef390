// Files under HAL9000_HOME belong to its owner, whoever writes them: the parent
// works as root, and must leave nothing that the owner cannot remove.

import {
  chmodSync,
  chownSync,
  closeSync,
  fsyncSync,
  lchownSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";

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

/** Makes a directory if it is not there, with this owner and mode. */
export function ensureDirectory(path: string, mode: number, owner: Owner) {
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    return;
  }
  chmodSync(path, mode); // mkdir's mode is subject to the umask
  give(path, owner);
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
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    const file = openSync(temporary, "w", mode);
    try {
      writeFileSync(file, text);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    give(temporary, owner);
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

/** Removes the oldest files of a directory until `count` are left. */
export function keepNewest(directory: string, count: number): void {
  const files = readdirSync(directory)
    .map((name) => join(directory, name))
    .flatMap((path) => {
      const stat = statSync(path, { throwIfNoEntry: false });
      return stat?.isFile() ? [{ path, at: stat.mtimeMs }] : [];
    })
    .sort((a, b) => b.at - a.at);
  for (const { path } of files.slice(count)) rmSync(path, { force: true });
}

/** Opens a file for a child's output; `flags` are those of open(2). */
export function openForOutput(
  path: string,
  flags: "w" | "a",
  owner: Owner,
): number {
  const file = openSync(path, flags, 0o600);
  give(path, owner);
  return file;
}

/** Gives a directory and all in it to `owner`, where it is another's. */
export function ensureOwner(directory: string, owner: Owner): void {
  const { uid, gid } = statSync(directory);
  if (uid === owner.uid && gid === owner.gid) return;
  for (const path of readdirSync(directory, { recursive: true })) {
    lchownSync(join(directory, String(path)), owner.uid, owner.gid);
  }
  chownSync(directory, owner.uid, owner.gid);
}

function give(path: string, { uid, gid }: Owner): void {
  // Only root can give away; for anyone else the file is the owner's already.
  if (process.getuid?.() === 0) chownSync(path, uid, gid);
}
