// Describes a directory tree byte for byte. Uses find instead of Deno's file API,
// which assumes UTF-8 names. Names are byte strings here, one character per byte
// ("latin1").

import { Buffer } from "node:buffer";
import * as v from "valibot";
import { Failure } from "../../std/errors.ts";
import { run } from "./run.ts";

const types = {
  f: "file",
  d: "directory",
  l: "link",
  p: "fifo",
  s: "socket",
} as const;

export const entrySchema = v.object({
  type: v.picklist(Object.values(types)),
  /** Size of a file; 0 for all others. */
  size: v.number(),
  /** In octal. */
  mode: v.string(),
  uid: v.number(),
  gid: v.number(),
  /** Seconds, with a fraction. */
  mtime: v.string(),
  /** For files only. */
  sha256: v.exactOptional(v.string()),
});

export interface Entry extends v.InferOutput<typeof entrySchema> {
  /** Relative to the tree's root, which is "". */
  path: string;
  /** For links only. */
  target?: string;
  /** For a file with several names: the first of them in this tree. */
  sameAs?: string;
}

/** Format for find; fields end with NUL, which no name contains. */
const fields = ["%P", "%y", "%s", "%m", "%U", "%G", "%T@", "%l", "%D:%i", "%n"];
const format = fields.map((field) => `${field}\\0`).join("");

/** All entries, sorted by path, without checksums. */
export async function scanTree(root: string): Promise<Entry[]> {
  const output = await run("find", [root, "-printf", format]);
  const words = output.toString("latin1").split("\0");
  const rows = Array.from(
    { length: Math.floor(words.length / fields.length) },
    (_, row) => words.slice(row * fields.length, (row + 1) * fields.length),
  );
  rows.sort(([a = ""], [b = ""]) => a < b ? -1 : 1);
  const first = new Map<string, string>();
  return rows.map((row) => entryOf(row, first));
}

/** `first` maps an inode to the first name of its file. */
function entryOf(row: string[], first: Map<string, string>): Entry {
  const [path = "", letter = "", size, mode = "", uid, gid, mtime = ""] = row;
  const [target = "", inode = "", names] = row.slice(7);
  const type = types[letter as keyof typeof types];
  if (!type) {
    throw new Failure("failed", `Cannot move "${shown(path)}"`, {
      hint: "It is a device; move it away.",
    });
  }
  const isFile = type === "file";
  const sameAs = isFile && names !== "1" ? first.get(inode) : undefined;
  if (isFile && sameAs === undefined) first.set(inode, path);
  return {
    path,
    type,
    size: isFile ? Number(size) : 0,
    mode,
    uid: Number(uid),
    gid: Number(gid),
    mtime,
    ...(type === "link" ? { target } : {}),
    ...(sameAs === undefined ? {} : { sameAs }),
  };
}

export interface Difference {
  path: string;
  /** "missing", "extra", or the names of the fields that differ. */
  what: string;
}

const compared = [
  "type",
  "size",
  "mode",
  "uid",
  "gid",
  "mtime",
  "target",
  "sameAs",
] as const;

/** Compares two trees; checksums only if both have them. */
export function compareTrees(wanted: Entry[], found: Entry[]): Difference[] {
  const others = new Map(found.map((entry) => [entry.path, entry]));
  const differences = wanted.flatMap((entry): Difference[] => {
    const { path } = entry;
    const other = others.get(path);
    others.delete(path);
    if (!other) return [{ path, what: "missing" }];
    const fields: string[] = compared.filter((field) =>
      entry[field] !== other[field]
    );
    const both = entry.sha256 !== undefined && other.sha256 !== undefined;
    if (both && entry.sha256 !== other.sha256) fields.push("content");
    return fields.length > 0 ? [{ path, what: fields.join(", ") }] : [];
  });
  const extra = [...others.keys()].map((path) => ({ path, what: "extra" }));
  return [...differences, ...extra];
}

/** A byte string for display: bytes that are not valid text are escaped. */
export function shown(path: string): string {
  const bytes = Buffer.from(path, "latin1");
  const text = bytes.toString("utf8");
  const isText = Buffer.from(text, "utf8").equals(bytes);
  return [...(isText ? text : path)].map((character) => {
    const code = character.codePointAt(0) ?? 0;
    const plain = code >= 0x20 && code !== 0x7f && (isText || code < 0x7f);
    return plain ? character : `\\x${code.toString(16).padStart(2, "0")}`;
  }).join("");
}
