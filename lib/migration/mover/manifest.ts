// manifest.json: describes the contents of a backup or a move.

import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import * as v from "valibot";
import { Failure } from "../../std/errors.ts";
import { type Entry, entrySchema } from "./tree.ts";

const text = v.exactOptional(v.string());

export const manifestSchema = v.object({
  version: v.literal(1),
  kind: v.string(),
  createdAt: v.string(),
  /** Versions of this program and of the program that wrote the data. */
  versions: v.record(v.string(), v.string()),
  parts: v.array(v.object({
    name: v.string(),
    files: v.number(),
    bytes: v.number(),
  })),
  entries: v.array(v.object({
    ...entrySchema.entries,
    /** Path including the part, e.g. "chromadb/chroma.sqlite3". */
    path: text,
    /** Used instead if the name is not valid UTF-8. */
    pathBase64: text,
    target: text,
    targetBase64: text,
    sameAs: text,
    sameAsBase64: text,
  })),
});

export type Manifest = v.InferOutput<typeof manifestSchema>;

/** Entries of one part, with paths relative to it. */
export interface Part {
  name: string;
  entries: Entry[];
}

/** Number of files, and their total size in bytes. */
export function sizeOf(entries: Entry[]): { files: number; bytes: number } {
  return {
    files: entries.filter(({ type }) => type === "file").length,
    bytes: entries.reduce((sum, { size }) => sum + size, 0),
  };
}

export function manifestOf(
  head: Pick<Manifest, "kind" | "createdAt" | "versions">,
  parts: Part[],
): Manifest {
  return {
    version: 1,
    ...head,
    parts: parts.map(({ name, entries }) => ({ name, ...sizeOf(entries) })),
    entries: parts.flatMap(({ name, entries }) =>
      entries.map(({ path, target, sameAs, ...rest }) => ({
        ...encoded("path", path === "" ? name : `${name}/${path}`),
        ...rest,
        ...encoded("target", target),
        ...encoded("sameAs", sameAs && `${name}/${sameAs}`),
      }))
    ),
  };
}

/** The entries of a part, as scanTree() returns them. */
export function entriesOf(manifest: Manifest, part: string): Entry[] {
  const below = (path: string) => path.slice(part.length + 1);
  return manifest.entries.flatMap((entry) => {
    const { pathBase64, targetBase64, sameAsBase64, ...rest } = entry;
    const path = decoded(rest.path, pathBase64) ?? "";
    if (path !== part && !path.startsWith(`${part}/`)) return [];
    const target = decoded(rest.target, targetBase64);
    const sameAs = decoded(rest.sameAs, sameAsBase64);
    return [{
      ...rest,
      path: below(path),
      ...(target === undefined ? {} : { target }),
      ...(sameAs === undefined ? {} : { sameAs: below(sameAs) }),
    }];
  });
}

/** Throws a Failure if the manifest is missing or damaged. */
export function readManifest(path: string): Manifest {
  try {
    return v.parse(manifestSchema, JSON.parse(readFileSync(path, "utf8")));
  } catch (error) {
    throw new Failure("failed", `Cannot read the manifest ${path}`, {
      cause: error,
    });
  }
}

/** JSON has no bytes: valid UTF-8 is stored as text, the rest as base64. */
function encoded<Key extends "path" | "target" | "sameAs">(
  key: Key,
  value: string | undefined,
): { [K in Key | `${Key}Base64`]?: string } {
  if (value === undefined) return {};
  const raw = Buffer.from(value, "latin1");
  const utf8 = raw.toString("utf8");
  const field = Buffer.from(utf8, "utf8").equals(raw)
    ? { [key]: utf8 }
    : { [`${key}Base64`]: raw.toString("base64") };
  return field as { [K in Key | `${Key}Base64`]?: string };
}

function decoded(
  utf8: string | undefined,
  base64: string | undefined,
): string | undefined {
  if (utf8 !== undefined) return Buffer.from(utf8, "utf8").toString("latin1");
  if (base64 === undefined) return undefined;
  return Buffer.from(base64, "base64").toString("latin1");
}
