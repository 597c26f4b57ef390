// Reads files that may have been put there by a worker or by accident: only plain files
// up to a given size, never links, pipes, devices or directories.

import { Buffer } from "node:buffer";
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  lstatSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
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
  return withPlainFile(path, followLinks, (file, size) => {
    if (size > maxBytes) {
      throw new NotPlain(`larger than ${binarySize(maxBytes)}`);
    }
    return readAt(file, 0, size);
  });
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
  return unlessNotPlain(() =>
    withPlainFile(path, false, (file, size) => {
      const start = offset > size ? 0 : offset;
      const from = Math.max(start, size - maxBytes);
      const bytes = readAt(file, from, size - from);
      return { bytes, from, to: from + bytes.length };
    })
  );
}

function withPlainFile<T>(
  path: string,
  followLinks: boolean,
  read: (file: number, size: number) => T,
): T {
  const file = openPlain(path, followLinks);
  try {
    const stat = fstatSync(file);
    if (stat.isDirectory()) throw new NotPlain("a directory");
    if (!stat.isFile()) throw new NotPlain("not a plain file");
    return read(file, stat.size);
  } finally {
    closeSync(file);
  }
}

/** Reads no more than `size` bytes, although the file may grow meanwhile. */
function readAt(file: number, start: number, size: number): Buffer {
  const bytes = Buffer.alloc(size);
  let length = 0;
  while (length < size) {
    const at = start + length;
    const count = readSync(file, bytes, length, size - length, at);
    if (count === 0) break;
    length += count;
  }
  return bytes.subarray(0, length);
}

/** The text of a plain file; undefined if it is missing or not a plain file. */
export function plainText(
  path: string,
  limits: ReadLimits,
): string | undefined {
  return unlessNotPlain(() => readPlainFile(path, limits))?.toString("utf8");
}

function unlessNotPlain<T>(read: () => T): T | undefined {
  try {
    return read();
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
    // Its owner holds a lease on it, fcntl(2): without O_NONBLOCK this would take 45 s.
    if (code === "EAGAIN") {
      throw new NotPlain("leased by a program", { cause: error });
    }
    // A socket cannot be opened.
    if (code === "ENXIO") throw new NotPlain("not a plain file");
    throw error;
  }
}

/** Whether there is anything at a path, also a link; false if that cannot be seen. */
export function isThere(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch {
    return false;
  }
}

/** Differs after each change of a file; "none" if it is missing or cannot be seen. */
export function fileSignature(path: string): string {
  // First, since Deno's error for a missing file takes ten times as long, whether or not
  // statSync() throws it. Some of these files are looked at ten times a second.
  if (!existsSync(path)) return "none";
  try {
    const { ino, mtimeNs, size } = statSync(path, { bigint: true });
    return `${ino} ${mtimeNs} ${size}`;
  } catch {
    return "none";
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
