// Measures trees, writes their manifest, and compares them with one.

import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { version } from "../../cli/cli.ts";
import { Failure } from "../../std/errors.ts";
import { ownerOf, writeAtomic } from "../../std/owned.ts";
import { addChecksums } from "./checksums.ts";
import { isDamaged, keptCollections } from "./collections.ts";
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

/** Sizes of the trees that exist. */
export async function measure({ at, parts }: Trees): Promise<Measured[]> {
  const present = parts.filter((name) => existsSync(join(at, name)));
  return await Promise.all(present.map(async (name) => {
    const entries = await scanTree(join(at, name));
    return { name, entries: entries.length, ...sizeOf(entries) };
  }));
}

/** Names of the trees with data. A ChromaDB without collections counts as empty. */
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

/** Reads all files of the trees, and writes their manifest. */
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

/** Attempts to read a tree that changes meanwhile. */
const attempts = 3;

/** Entries of a tree that did not change while its contents were read. */
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
    // A directory changes along with its entries, so name a file if possible.
    const directories = new Set(
      entries.flatMap(({ type, path }) => type === "directory" ? [path] : []),
    );
    const file = found.find(({ path }) => !directories.has(path)) ?? found[0];
    changed = join(name, file?.path ?? "");
  }
  throw new Failure("busy", `"${shown(changed)}" changed while it was read`, {
    hint: "Stop what writes to it, then run it again.",
  });
}

export const comparisonSchema = v.object({
  count: v.number(),
  /** The first differences, for display. */
  first: v.array(v.string()),
});

/** Number of differences to display. */
const maxShown = 20;

/** Compares trees with a manifest; without `contents`, only their metadata. */
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

/** Reads all files of trees without a manifest; returns what cannot be read. */
export async function examine(
  { at, parts }: Trees,
  progress: Progress,
): Promise<v.InferOutput<typeof comparisonSchema>> {
  const found: string[] = [];
  for (const name of parts) {
    const root = join(at, name);
    try {
      await addChecksums(root, await scanTree(root), progress);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      found.push(`${name}: ${error.message}`);
    }
    if (name === "chromadb" && await isDamaged(root)) {
      found.push("chromadb/chroma.sqlite3: not a readable database");
    }
  }
  return { count: found.length, first: found.slice(0, maxShown) };
}
