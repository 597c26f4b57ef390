// Paths of unix sockets. A listener takes a path when it listens, and removes it
// only while the path still is its own socket.

import {
  chmodSync,
  chownSync,
  linkSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import process from "node:process";
import type { Owner } from "../std/owned.ts";

export interface Place {
  isOurs(): boolean;
  leave(): void;
}

/** Begins to listen at a temporary path. */
type Listen = (path: string) => Promise<void>;

/**
 * Takes a path that no other process may use; replaces whatever is there. The
 * owner's group, which nsenter is in, can connect.
 */
export async function takePath(
  path: string,
  owner: Owner,
  listen: Listen,
): Promise<Place> {
  const temporary = await listenBeside(path, owner, listen, 0o660);
  const place = placeOf(temporary, path);
  renameSync(temporary, path);
  return place;
}

/**
 * Takes a path that several processes compete for. Returns undefined if another
 * process has it and `answers`. A socket left by a killed process is moved aside
 * first; if it turns out to be that of a faster process, it is moved back.
 */
export async function takePathIfFree(
  path: string,
  owner: Owner,
  listen: Listen,
  answers: () => Promise<boolean>,
): Promise<Place | undefined> {
  const temporary = await listenBeside(path, owner, listen);
  const aside = `${temporary}.old`;
  try {
    while (true) {
      if (tryLink(temporary, path)) return placeOf(temporary, path);
      const former = inodeOf(path);
      if (await answers()) return undefined;
      if (!tryRename(path, aside)) continue;
      if (inodeOf(aside) !== former) tryLink(aside, path);
      rmSync(aside);
    }
  } finally {
    rmSync(temporary);
  }
}

async function listenBeside(
  path: string,
  owner: Owner,
  listen: Listen,
  mode = 0o600,
): Promise<string> {
  const temporary = `${path}.${process.pid}`;
  rmSync(temporary, { force: true });
  await listen(temporary);
  chmodSync(temporary, mode);
  if (process.getuid?.() === 0) chownSync(temporary, owner.uid, owner.gid);
  return temporary;
}

function placeOf(temporary: string, path: string): Place {
  const inode = inodeOf(temporary);
  const isOurs = () => inodeOf(path) === inode;
  return {
    isOurs,
    leave: () => {
      if (isOurs()) rmSync(path, { force: true });
    },
  };
}

function inodeOf(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.ino;
}

/** Returns false if there was nothing to move. */
function tryRename(from: string, to: string): boolean {
  try {
    renameSync(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    return false;
  }
}

/** Unlike a rename, a link does not replace. Returns false if the name is taken. */
function tryLink(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    return false;
  }
}
