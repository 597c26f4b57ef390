// The places of unix sockets, which a listener takes when it listens, and gives back
// only while they are its own.

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

/** Begins to listen at a path that nobody knows. */
type Listen = (path: string) => Promise<void>;

/**
 * Takes a place that is nobody else's by right, whatever is there; for the owner's
 * group too, which the forwarder is in.
 */
export async function takePlace(
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
 * Takes a place that one of several may have; gives undefined where another has it
 * that `answers`. What a killed one left is moved aside first: should that turn out to
 * be the place of one that was faster, it goes back.
 */
export async function takeOnlyPlace(
  path: string,
  owner: Owner,
  listen: Listen,
  answers: () => Promise<boolean>,
): Promise<Place | undefined> {
  const temporary = await listenBeside(path, owner, listen);
  const aside = `${temporary}.old`;
  try {
    while (true) {
      if (linked(temporary, path)) return placeOf(temporary, path);
      const former = inodeOf(path);
      if (await answers()) return undefined;
      if (!moved(path, aside)) continue;
      if (inodeOf(aside) !== former) linked(aside, path);
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

/** Gives whether there was something to move. */
function moved(from: string, to: string): boolean {
  try {
    renameSync(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    return false;
  }
}

/** Unlike a rename this does not replace; gives whether the name was free. */
function linked(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    return false;
  }
}
