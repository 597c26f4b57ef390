// What the mover does, by name: asked for in one JSON argument, answered in lines
// of JSON. Runs in the mover, as root: names of trees are ours, those in them are
// anybody's.

import {
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
} from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { Failure } from "../../std/errors.ts";
import { type Owner, writeWhole } from "../../std/owned.ts";
import { keptCollections, servedCollections } from "./collections.ts";
import { copyTree } from "./copy.ts";
import {
  entriesOf,
  type Manifest,
  manifestOf,
  manifestSchema,
} from "./manifest.ts";
import { addChecksums, compareTrees, run, scanTree, shown } from "./tree.ts";

const partsSchema = v.array(v.object({ name: v.string(), path: v.string() }));
const ownerSchema = v.object({ uid: v.number(), gid: v.number() });

export const operationSchema = v.variant("op", [
  /** Counts of each part; one that is not there is left out. */
  v.object({ op: v.literal("measure"), parts: partsSchema }),
  /** Reads all of the parts, and writes their manifest. */
  v.object({
    op: v.literal("manifest"),
    parts: partsSchema,
    to: v.string(),
    kind: v.string(),
    versions: v.record(v.string(), v.string()),
    owner: ownerSchema,
  }),
  /** How parts differ from a manifest; without `contents` by looks alone. */
  v.object({
    op: v.literal("compare"),
    parts: partsSchema,
    manifest: v.string(),
    contents: v.boolean(),
  }),
  v.object({ op: v.literal("copy"), from: v.string(), to: v.string() }),
  v.object({ op: v.literal("rename"), from: v.string(), to: v.string() }),
  v.object({ op: v.literal("copyFile"), from: v.string(), to: v.string() }),
  v.object({ op: v.literal("remove"), path: v.string() }),
  /** Removes what is in a directory, and leaves that. */
  v.object({ op: v.literal("empty"), path: v.string() }),
  v.object({
    op: v.literal("directory"),
    path: v.string(),
    owner: ownerSchema,
  }),
  /** Whether anything is in each directory. */
  v.object({ op: v.literal("inUse"), parts: partsSchema }),
  v.object({
    op: v.literal("give"),
    path: v.string(),
    from: v.number(),
    owner: ownerSchema,
  }),
  v.object({ op: v.literal("collections"), path: v.string() }),
  /** Asked in the parent. */
  v.object({ op: v.literal("served"), port: v.number() }),
]);

export type Operation = v.InferOutput<typeof operationSchema>;

export const measuredSchema = v.array(v.object({
  name: v.string(),
  entries: v.number(),
  files: v.number(),
  bytes: v.number(),
}));

export type Measured = v.InferOutput<typeof measuredSchema>[number];

export const comparisonSchema = v.object({
  count: v.number(),
  /** The first of them, as people read them. */
  first: v.array(v.string()),
});

/** As many differences as are worth a look. */
const shownDifferences = 20;

export type Progress = (files: number, bytes: number) => void;

export async function perform(
  operation: Operation,
  progress: Progress,
): Promise<unknown> {
  switch (operation.op) {
    case "measure":
      return await measure(operation.parts);
    case "manifest":
      return await writeManifest(operation, progress);
    case "compare":
      return await compare(operation, progress);
    case "copy":
      return await copyTree(operation.from, operation.to, progress);
    case "rename":
      return renameSync(operation.from, operation.to);
    case "copyFile":
      return await run("cp", ["--archive", operation.from, operation.to]);
    case "remove":
      return await run("rm", ["-rf", "--", operation.path]);
    case "empty":
      return await run("find", [operation.path, "-mindepth", "1", "-delete"]);
    case "directory":
      return ensureDirectory(operation.path, operation.owner);
    case "give":
      return await give(operation);
    case "inUse":
      return await partsWithData(operation.parts);
    case "collections":
      return await keptCollections(operation.path);
    case "served":
      return await servedCollections(operation.port);
  }
}

type Parts = v.InferOutput<typeof partsSchema>;

/** Names of the parts that hold data; a ChromaDB without collections holds none. */
async function partsWithData(parts: Parts): Promise<string[]> {
  const found: string[] = [];
  for (const { name, path } of parts) {
    const names = existsSync(path) ? readdirSync(path) : [];
    const fresh = name === "chromadb" && names.join() === "chroma.sqlite3" &&
      (await keptCollections(path))?.length === 0;
    if (names.length > 0 && !fresh) found.push(name);
  }
  return found;
}

async function measure(parts: Parts): Promise<Measured[]> {
  const present = parts.filter(({ path }) => existsSync(path));
  return await Promise.all(present.map(async ({ name, path }) => {
    const entries = await scanTree(path);
    return {
      name,
      entries: entries.length,
      files: entries.filter(({ type }) => type === "file").length,
      bytes: entries.reduce((sum, { size }) => sum + size, 0),
    };
  }));
}

/** How often a tree may change while it is read. */
const attempts = 3;

async function writeManifest(
  { parts, to, kind, versions, owner }: Extract<Operation, { op: "manifest" }>,
  progress: Progress,
): Promise<void> {
  const read = [];
  for (const { name, path } of parts) {
    read.push({ name, entries: await readSteady(name, path, progress) });
  }
  const createdAt = new Date().toISOString();
  const manifest = manifestOf({ kind, createdAt, versions }, read);
  writeWhole(to, JSON.stringify(manifest), owner);
}

/** A tree that looked the same before its contents were read and after. */
async function readSteady(name: string, path: string, progress: Progress) {
  let changed = "";
  for (let attempt = 0; attempt < attempts; attempt++) {
    const entries = await scanTree(path);
    await addChecksums(path, entries, progress);
    const found = compareTrees(entries, await scanTree(path));
    if (found.length === 0) return entries;
    // A directory changes with what is in it.
    const directories = entries.filter(({ type }) => type === "directory")
      .map(({ path }) => path);
    changed = (found.find(({ path }) => !directories.includes(path)) ??
      found[0])?.path ?? "";
  }
  throw new Failure(
    "busy",
    `"${shown(join(name, changed))}" changes while it is read`,
    { hint: "Stop what writes to it, then run it again." },
  );
}

async function compare(
  { parts, manifest: path, contents }: Extract<Operation, { op: "compare" }>,
  progress: Progress,
): Promise<v.InferOutput<typeof comparisonSchema>> {
  const manifest = readManifest(path);
  const found: string[] = [];
  for (const { name, path } of parts) {
    const wanted = entriesOf(manifest, name);
    const entries = existsSync(path) ? await scanTree(path) : [];
    if (contents) await addChecksums(path, entries, progress);
    found.push(
      ...compareTrees(wanted, entries).map(({ path, what }) =>
        `${shown(path === "" ? name : `${name}/${path}`)}: ${what}`
      ),
    );
  }
  return { count: found.length, first: found.slice(0, shownDifferences) };
}

export function readManifest(path: string): Manifest {
  try {
    return v.parse(manifestSchema, JSON.parse(readFileSync(path, "utf8")));
  } catch (error) {
    throw new Failure("failed", `Cannot read the manifest ${path}`, {
      cause: error,
    });
  }
}

/** What belongs to user `from` is the owner's afterwards. */
async function give(
  { path, from, owner }: Extract<Operation, { op: "give" }>,
): Promise<void> {
  const chown = [
    "-exec",
    "chown",
    "-h",
    `${owner.uid}:${owner.gid}`,
    "{}",
    "+",
  ];
  await run("find", [path, "-uid", String(from), ...chown]);
}

function ensureDirectory(path: string, { uid, gid }: Owner): void {
  if (existsSync(path)) return;
  mkdirSync(path, { mode: 0o700 });
  chownSync(path, uid, gid);
}
