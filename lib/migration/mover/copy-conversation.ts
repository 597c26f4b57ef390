// Copies a conversation from one Claude home to another. Sessions wrote to both: links are not
// followed.

import { Buffer } from "node:buffer";
import { closeSync, fstatSync, lstatSync, readSync, renameSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { Failure } from "../../std/errors.ts";
import {
  chownTree,
  ensureDirectory,
  type Owner,
  ownerOf,
} from "../../std/owned.ts";
import { addChecksums } from "./checksums.ts";
import { chunkBytes, openFile } from "./conversations.ts";
import { copyTree } from "./copy.ts";
import { type Progress, run } from "./run.ts";
import { compareTrees, scanTree } from "./tree.ts";

const placeSchema = v.object({
  /** A Claude home. */
  home: v.string(),
  directory: v.string(),
});

export const copyConversationFields = {
  id: v.string(),
  from: placeSchema,
  to: placeSchema,
  /** A path for the unfinished copy, on the same file system as `to`. */
  staged: v.string(),
};

const copyConversationSchema = v.object(copyConversationFields);
type Copying = v.InferOutput<typeof copyConversationSchema>;

/**
 * "present": the target has the same conversation, or has continued it. "differs": both
 * have continued it. "blocked": a link or another kind of file is in the way. "large": it
 * has more than maxBytes.
 */
export const copiedSchema = v.picklist([
  "copied",
  "present",
  "differs",
  "blocked",
  "large",
]);

type Copied = v.InferOutput<typeof copiedSchema>;

/** Each byte is read several times, also those that a sparse file does not store. */
const maxBytes = 4 * 1024 ** 3;

/**
 * Copies a conversation with its subagents and file history; the copy belongs to the owner
 * of its home. Replaces an existing conversation only by one that continues it.
 */
export async function copyConversation(
  copying: Copying,
  progress: Progress,
): Promise<Copied> {
  const { id, from, to, staged } = copying;
  const owner = ownerOf(to.home);
  const between = (parts: (place: typeof from) => string[], name: string) => {
    const source = reach(from.home, parts(from));
    const target = reach(to.home, parts(to), owner);
    return source !== undefined && target !== undefined
      ? { source: join(source, name), target: join(target, name) }
      : undefined;
  };
  const inProjects = ({ directory }: typeof from) => ["projects", directory];
  const text = between(inProjects, `${id}.jsonl`);
  if (!text || !statOf(text.source)?.isFile()) return "blocked";
  const trees = [
    between(inProjects, id),
    between(() => ["file-history"], id),
  ].filter((tree) => tree !== undefined)
    .filter(({ source, target }) => isDirectory(source) && !exists(target));
  if (await isLarge([text, ...trees])) return "large";
  const relation = relate(text.source, text.target);
  if (relation !== "continues") return relation;
  // Before the text, so that a conversation never lacks them.
  for (const tree of trees) await place(tree, staged, owner, progress);
  await place(text, staged, owner, progress);
  return "copied";
}

async function isLarge(copies: { source: string }[]): Promise<boolean> {
  let bytes = 0;
  for (const { source } of copies) {
    for (const { size } of await scanTree(source)) bytes += size;
  }
  return bytes > maxBytes;
}

/**
 * A directory below a Claude home; undefined if it is missing, or if a part is a link or
 * another kind of file. With an owner, missing directories are created.
 */
function reach(
  home: string,
  parts: string[],
  owner?: Owner,
): string | undefined {
  let path = home;
  for (const part of ["", ...parts]) {
    path = join(path, part);
    if (owner && part !== "" && !exists(path)) {
      ensureDirectory(path, 0o700, owner);
    }
    if (!isDirectory(path)) return undefined;
  }
  return path;
}

function exists(path: string): boolean {
  return statOf(path) !== undefined;
}

function isDirectory(path: string): boolean {
  return statOf(path)?.isDirectory() ?? false;
}

function statOf(path: string) {
  return lstatSync(path, { throwIfNoEntry: false });
}

/** "continues" if the source has all that the target has, and more. */
function relate(source: string, target: string): Copied | "continues" {
  const stat = statOf(target);
  if (!stat) return "continues";
  if (!stat.isFile()) return "blocked";
  const isLonger = lstatSync(source).size > stat.size;
  if (!startSame(source, target)) return "differs";
  return isLonger ? "continues" : "present";
}

/** Whether the shorter of two files is the start of the other. */
function startSame(one: string, other: string): boolean {
  const files = [openFile(one), openFile(other)] as const;
  try {
    const sizes = files.map((file) => fstatSync(file).size);
    let left = Math.min(...sizes);
    const buffers = files.map(() => Buffer.alloc(chunkBytes));
    while (left > 0) {
      const bytes = Math.min(left, chunkBytes);
      const read = files.map((file, index) =>
        readFully(file, buffers[index] as Buffer, bytes)
      );
      if (!read[0]?.equals(read[1] as Buffer)) return false;
      left -= bytes;
    }
    return true;
  } finally {
    for (const file of files) closeSync(file);
  }
}

function readFully(file: number, buffer: Buffer, bytes: number): Buffer {
  let length = 0;
  while (length < bytes) {
    const count = readSync(file, buffer, length, bytes - length, null);
    if (count === 0) break;
    length += count;
  }
  return buffer.subarray(0, length);
}

/** Copies a file or a tree, verifies the copy, and renames it into place. */
async function place(
  { source, target }: { source: string; target: string },
  staged: string,
  owner: Owner,
  progress: Progress,
): Promise<void> {
  await run("rm", ["-rf", "--", staged]);
  await copyTree({ from: source, to: staged }, progress);
  const isSame = isDirectory(source)
    ? await treesSame(source, staged, progress)
    : lstatSync(source).size === lstatSync(staged).size &&
      startSame(source, staged);
  if (!isSame) {
    throw new Failure("busy", `"${source}" changed while it was copied`, {
      hint: "Stop what writes to it, then run it again.",
    });
  }
  chownTree(staged, owner);
  renameSync(staged, target);
}

async function treesSame(
  one: string,
  other: string,
  progress: Progress,
): Promise<boolean> {
  const [source, copy] = [await scanTree(one), await scanTree(other)];
  await addChecksums(one, source, progress);
  await addChecksums(other, copy, progress);
  return compareTrees(source, copy).length === 0;
}
