// The way to read a file that a worker, or an accident, may have laid: a plain file
// of no more than a given size, never a link, a pipe, a device or a directory.

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

/** Something has the name that is not read; `message` is what, as in "a link". */
export class NotPlain extends Error {}

export interface ReadLimits {
  maxBytes: number;
  /** For a person's own files, which may be kept elsewhere. */
  followLinks?: boolean;
}

/** Throws NotPlain for what is not read, and what open(2) throws, ENOENT included. */
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
    // It may grow meanwhile: no more than was allowed for is read.
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

/** The text of one; undefined where there is none, or nothing that is read. */
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
    // Without O_NONBLOCK a pipe would be waited for.
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
 * Frees the place of a file of ours in a directory that a worker owns. A directory
 * that it laid there may be of any size and depth: it is moved aside, not removed.
 */
export function clearPlace(path: string): void {
  if (lstatSync(path, { throwIfNoEntry: false })?.isDirectory()) {
    const aside = `hal9000-aside.${randomBytes(8).toString("hex")}`;
    renameSync(path, join(dirname(path), aside));
  } else rmSync(path, { force: true });
}
