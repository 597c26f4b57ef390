// Reads trees: their sizes, their manifest, and how they differ from one.

import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { version } from "../../cli/cli.ts";
import { Failure } from "../../std/errors.ts";
import { ownerOf, writeAtomic } from "../../std/owned.ts";
import { addChecksums } from "./checksums.ts";
import { keptCollections } from "./collections.ts";
import { entriesOf, manifestOf, readManifest, sizeOf } from "./manifest.ts";
import { insideMover } from "./places.ts";
import type { Progress } from "./run.ts";
import { compareTrees, type Entry, scanTree, shown } from "./tree.ts";

/** Names of trees, and the directory that they are in. */
export const treesSchema = v.object({
  at: v.string(),
  parts: v.array(v.string()),
});

type Trees = v.InferOutput<typeof treesSchema>;

export const measuredSchema = v.object({
  name: v.string(),
  entries: v.number(),
  files: v.number(),
  bytes: v.number(),
});

export type Measured = v.InferOutput<typeof measuredSchema>;

/** Those that are there. */
export async function measure({ at, parts }: Trees): Promise<Measured[]> {
  const present = parts.filter((name) => existsSync(join(at, name)));
  return await Promise.all(present.map(async (name) => {
    const entries = await scanTree(join(at, name));
    return { name, entries: entries.length, ...sizeOf(entries) };
  }));
}

/** Names of the trees that hold data; a ChromaDB without collections holds none. */
export async function withData({ at, parts }: Trees): Promise<string[]> {
  const found: string[] = [];
  for (const name of parts) {
    const path = join(at, name);
    const names = existsSync(path) ? readdirSync(path) : [];
    const fresh = name === "chromadb" && names.join() === "chroma.sqlite3" &&
      (await keptCollections(path))?.length === 0;
    if (names.length > 0 && !fresh) found.push(name);
  }
  return found;
}

/** Reads all of the trees, and writes their manifest. */
export async function writeManifest(
  { at, parts, to, kind }: Trees & { to: string; kind: string },
  progress: Progress,
): Promise<void> {
  const read = [];
  for (const name of parts) {
    read.push({ name, entries: await readSteady(at, name, progress) });
  }
  const createdAt = new Date().toISOString();
  const source = kind === "migrate" ? { source: "0.5" } : {};
  const versions = { "hal-9000-dind": version, ...source };
  const manifest = manifestOf({ kind, createdAt, versions }, read);
  writeAtomic(to, JSON.stringify(manifest), ownerOf(insideMover.home));
}

/** How often a tree may change while it is read. */
const attempts = 3;

/** A tree that looked the same before its contents were read and after. */
async function readSteady(
  at: string,
  name: string,
  progress: Progress,
): Promise<Entry[]> {
  const root = join(at, name);
  let changed = "";
  for (let attempt = 0; attempt < attempts; attempt++) {
    const entries = await scanTree(root);
    await addChecksums(root, entries, progress);
    const found = compareTrees(entries, await scanTree(root));
    if (found.length === 0) return entries;
    // A directory changes with what is in it.
    const directories = new Set(
      entries.flatMap(({ type, path }) => type === "directory" ? [path] : []),
    );
    const file = found.find(({ path }) => !directories.has(path)) ?? found[0];
    changed = join(name, file?.path ?? "");
  }
  throw new Failure("busy", `"${shown(changed)}" changes while it is read`, {
    hint: "Stop what writes to it, then run it again.",
  });
}

export const comparisonSchema = v.object({
  count: v.number(),
  /** The first differences, as people read them. */
  first: v.array(v.string()),
});

/** As many differences as are worth a look. */
const maxShown = 20;

/** How trees differ from a manifest; without `contents` by looks alone. */
export async function compare(
  input: Trees & { manifest: string; contents: boolean },
  progress: Progress,
): Promise<v.InferOutput<typeof comparisonSchema>> {
  const manifest = readManifest(input.manifest);
  const found: string[] = [];
  for (const name of input.parts) {
    const root = join(input.at, name);
    const entries = existsSync(root) ? await scanTree(root) : [];
    if (input.contents) await addChecksums(root, entries, progress);
    const differences = compareTrees(entriesOf(manifest, name), entries);
    for (const { path, what } of differences) {
      found.push(`${shown(path === "" ? name : `${name}/${path}`)}: ${what}`);
    }
  }
  return { count: found.length, first: found.slice(0, maxShown) };
}
