// manifest.json: what a backup, or a move, consists of.

import { Buffer } from "node:buffer";
import * as v from "valibot";
import type { Entry } from "./tree.ts";

const entrySchema = v.object({
  /** With the part that it belongs to: "chromadb/chroma.sqlite3". */
  path: v.optional(v.string()),
  /** In its place, for a name that is no UTF-8. */
  pathBase64: v.optional(v.string()),
  type: v.picklist(["file", "directory", "link", "fifo", "socket"]),
  size: v.number(),
  mode: v.string(),
  uid: v.number(),
  gid: v.number(),
  mtime: v.string(),
  target: v.optional(v.string()),
  targetBase64: v.optional(v.string()),
  /** The path of the same file under its first name. */
  sameAs: v.optional(v.string()),
  sameAsBase64: v.optional(v.string()),
  sha256: v.optional(v.string()),
});

export const manifestSchema = v.object({
  version: v.literal(1),
  kind: v.string(),
  createdAt: v.string(),
  /** Of this program, and of what the data was written by. */
  versions: v.record(v.string(), v.string()),
  parts: v.array(v.object({
    name: v.string(),
    files: v.number(),
    bytes: v.number(),
  })),
  entries: v.array(entrySchema),
});

export type Manifest = v.InferOutput<typeof manifestSchema>;
export type ManifestHead = Omit<Manifest, "entries">;

/** Entries of one part; their paths are below the part's own directory. */
export interface Part {
  name: string;
  entries: Entry[];
}

export function manifestOf(
  head: Omit<ManifestHead, "version" | "parts">,
  parts: Part[],
): Manifest {
  return {
    version: 1,
    ...head,
    parts: parts.map(({ name, entries }) => ({
      name,
      files: entries.filter(({ type }) => type === "file").length,
      bytes: entries.reduce((sum, { size }) => sum + size, 0),
    })),
    entries: parts.flatMap(({ name, entries }) =>
      entries.map((entry) => ({
        ...bytes("path", joined(name, entry.path)),
        type: entry.type,
        size: entry.size,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        ...bytes("target", entry.target),
        ...bytes("sameAs", entry.sameAs && joined(name, entry.sameAs)),
        ...(entry.sha256 === undefined ? {} : { sha256: entry.sha256 }),
      }))
    ),
  };
}

/** The entries of a part, as a tree is compared with. */
export function entriesOf(manifest: Manifest, part: string): Entry[] {
  const below = (path: string) => path.slice(part.length + 1);
  return manifest.entries.flatMap((entry) => {
    const path = text(entry.path, entry.pathBase64);
    if (path !== part && !path?.startsWith(`${part}/`)) return [];
    const target = text(entry.target, entry.targetBase64);
    const sameAs = text(entry.sameAs, entry.sameAsBase64);
    const { type, size, mode, uid, gid, mtime, sha256 } = entry;
    return [{
      ...{ path: below(path), type, size, mode, uid, gid, mtime },
      ...(target === undefined ? {} : { target }),
      ...(sameAs === undefined ? {} : { sameAs: below(sameAs) }),
      ...(sha256 === undefined ? {} : { sha256 }),
    }];
  });
}

function joined(part: string, path: string): string {
  return path === "" ? part : `${part}/${path}`;
}

/** JSON has no bytes: what is UTF-8 is text, the rest is base64. */
function bytes<Key extends "path" | "target" | "sameAs">(
  key: Key,
  value: string | undefined,
): { [K in Key | `${Key}Base64`]?: string } {
  if (value === undefined) return {};
  const raw = Buffer.from(value, "latin1");
  const utf8 = raw.toString("utf8");
  const same = Buffer.from(utf8, "utf8").equals(raw);
  const field = same
    ? { [key]: utf8 }
    : { [`${key}Base64`]: raw.toString("base64") };
  return field as { [K in Key | `${Key}Base64`]?: string };
}

function text(
  utf8: string | undefined,
  base64: string | undefined,
): string | undefined {
  if (utf8 !== undefined) return Buffer.from(utf8, "utf8").toString("latin1");
  return base64 === undefined
    ? undefined
    : Buffer.from(base64, "base64").toString("latin1");
}
