// Reads files that may have been put there by a worker or by accident: only plain files
// up to a given size, never links, pipes, devices or directories.

import { Buffer } from "node:buffer";
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
} from "node:fs";
import { randomBytes } from "node:crypto";
import { dirname, join } from "node:path";
import { binarySize } from "./units.ts";

/** The path is not a readable plain file; `message` is what it is, such as "a link". */
export class NotPlain extends Error {}

export interface ReadLimits {
  maxBytes: number;
  /** For the user's own files, which may be links. */
  followLinks?: boolean;
}

/** Throws NotPlain if it is not a plain file, and the errors of open(2). */
export function readPlainFile(
  path: string,
  { maxBytes, followLinks = false }: ReadLimits,
): Buffer {
  const file = openPlain(path, followLinks);
  try {
    const stat = fstatSync(file);
    if (stat.isDirectory()) throw new NotPlain("a directory");
    if (!stat.isFile()) throw new NotPlain("not a plain file");
    if (stat.size > maxBytes) {
      throw new NotPlain(`larger than ${binarySize(maxBytes)}`);
    }
    // The file may grow meanwhile; no more than the checked size is read.
    const bytes = Buffer.alloc(stat.size);
    let length = 0;
    while (length < bytes.length) {
      const count = readSync(file, bytes, length, bytes.length - length, null);
      if (count === 0) break;
      length += count;
    }
    return bytes.subarray(0, length);
  } finally {
    closeSync(file);
  }
}

/** The end of a plain file that may be large and growing. */
export interface FileEnd {
  bytes: Buffer;
  /** Offset of the first of these bytes. */
  from: number;
  /** Offset behind the last of these bytes. */
  to: number;
}

/**
 * Reads from an offset to the end, but at most the last `maxBytes`. From the beginning
 * if the file is now shorter than the offset. Undefined if it is missing or not a plain
 * file.
 */
export function readFileEnd(
  path: string,
  offset: number,
  maxBytes: number,
): FileEnd | undefined {
  let file: number;
  try {
    file = openPlain(path, false);
  } catch (error) {
    if (error instanceof NotPlain || isAbsent(error)) return undefined;
    throw error;
  }
  try {
    const stat = fstatSync(file);
    if (!stat.isFile()) return undefined;
    const start = offset > stat.size ? 0 : offset;
    const from = Math.max(start, stat.size - maxBytes);
    const bytes = Buffer.alloc(stat.size - from);
    let length = 0;
    while (length < bytes.length) {
      const left = bytes.length - length;
      const count = readSync(file, bytes, length, left, from + length);
      if (count === 0) break;
      length += count;
    }
    return { bytes: bytes.subarray(0, length), from, to: from + length };
  } finally {
    closeSync(file);
  }
}

/** The text of a plain file; undefined if it is missing or not a plain file. */
export function plainText(
  path: string,
  limits: ReadLimits,
): string | undefined {
  try {
    return readPlainFile(path, limits).toString("utf8");
  } catch (error) {
    if (error instanceof NotPlain || isAbsent(error)) return undefined;
    throw error;
  }
}

function isAbsent(error: unknown): boolean {
  return ["ENOENT", "ENOTDIR"].includes(
    (error as NodeJS.ErrnoException).code ?? "",
  );
}

function openPlain(path: string, followLinks: boolean): number {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK, O_NOCTTY } = constants;
  try {
    // Without O_NONBLOCK, opening a pipe would block.
    return openSync(
      path,
      O_RDONLY | O_NONBLOCK | O_NOCTTY | (followLinks ? 0 : O_NOFOLLOW),
    );
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ELOOP") throw new NotPlain("a link", { cause: error });
    // A socket cannot be opened.
    if (code === "ENXIO") throw new NotPlain("not a plain file");
    throw error;
  }
}

/**
 * Removes a file in a directory that a worker can write to. If the worker has created a
 * directory with this name, that is moved aside, because it may be of any size and depth.
 */
export function clearPath(path: string): void {
  if (lstatSync(path, { throwIfNoEntry: false })?.isDirectory()) {
    const aside = `hal9000-aside.${randomBytes(8).toString("hex")}`;
    renameSync(path, join(dirname(path), aside));
  } else rmSync(path, { force: true });
}
