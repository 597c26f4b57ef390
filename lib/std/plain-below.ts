// Reads files of a project, which may be hostile: only plain files, reached only through
// plain directories. A link could point elsewhere by the time it is followed.

import { Buffer } from "node:buffer";
import {
  closeSync,
  constants,
  type Dirent,
  fstatSync,
  opendirSync,
  openSync,
  readSync,
} from "node:fs";
import { join } from "node:path";

/** The content cannot be reviewed; the message is the reason. */
export class Unreviewable extends Error {}

const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK, O_DIRECTORY } = constants;

/** Reads a file; undefined if it is missing. `name` must not contain . or .. parts. */
export function readPlain(
  root: string,
  name: string,
  maxBytes: number,
): Buffer | undefined {
  if (!parentsArePlain(root, name)) return undefined;
  let file: number;
  try {
    file = openSync(join(root, name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  } catch (error) {
    return absent(error, name);
  }
  try {
    const stat = fstatSync(file);
    if (!stat.isFile()) throw new Unreviewable(`${name} is not a file`);
    if (stat.size > maxBytes) throw new Unreviewable(`${name} is too large`);
    const bytes = Buffer.alloc(Math.min(stat.size, maxBytes));
    return bytes.subarray(0, readSync(file, bytes));
  } finally {
    closeSync(file);
  }
}

/** The entries of a directory sorted by name; empty if there is no directory. */
export function entriesOf(
  root: string,
  name: string,
  maxEntries: number,
): Dirent[] {
  if (!parentsArePlain(root, `${name}/x`)) return [];
  const directory = opendirSync(join(root, name));
  const entries: Dirent[] = [];
  try {
    for (let entry; (entry = directory.readSync());) {
      entries.push(entry);
      if (entries.length > maxEntries) break;
    }
  } finally {
    directory.closeSync();
  }
  return entries.sort((a, b) => a.name < b.name ? -1 : 1);
}

/** Whether all parent directories exist; throws if one is a link. */
function parentsArePlain(root: string, name: string): boolean {
  const parts = name.split("/").slice(0, -1);
  for (let count = 1; count <= parts.length; count++) {
    const directory = parts.slice(0, count).join("/");
    try {
      const flags = O_RDONLY | O_NOFOLLOW | O_DIRECTORY;
      closeSync(openSync(join(root, directory), flags));
    } catch (error) {
      absent(error, directory);
      return false;
    }
  }
  return true;
}

function absent(error: unknown, name: string): undefined {
  const { code } = error as NodeJS.ErrnoException;
  if (code === "ENOENT") return undefined;
  const reason: Record<string, string> = {
    ELOOP: "is a link",
    ENOTDIR: "is a link or not a directory",
    EACCES: "cannot be read",
    ENXIO: "is not a file",
    EAGAIN: "is leased by a program",
  };
  throw new Unreviewable(`${name} ${reason[code ?? ""] ?? code}`);
}
