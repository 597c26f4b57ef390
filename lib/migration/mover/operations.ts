// What the mover does, by name. It runs as root: names of trees are ours, those in them
// are anybody's.

import { existsSync, readdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { Failure } from "../../std/errors.ts";
import { writeWhole } from "../../std/owned.ts";
import { addChecksums } from "./checksums.ts";
import { collectionsSchema, keptCollections } from "./collections.ts";
import { copyTree, emptyDirectory } from "./copy.ts";
import { entriesOf, manifestOf, readManifest, sizeOf } from "./manifest.ts";
import { type Progress, run } from "./run.ts";
import { compareTrees, type Entry, scanTree, shown } from "./tree.ts";

const parts = v.array(v.object({ name: v.string(), path: v.string() }));
const owner = v.object({ uid: v.number(), gid: v.number() });
const fromTo = { from: v.string(), to: v.string() };
const nothing = v.pipe(v.unknown(), v.transform(() => null));

const measuredSchema = v.object({
  name: v.string(),
  entries: v.number(),
  files: v.number(),
  bytes: v.number(),
});

export type Measured = v.InferOutput<typeof measuredSchema>;

const comparisonSchema = v.object({
  count: v.number(),
  /** The first differences, as people read them. */
  first: v.array(v.string()),
});

export type Comparison = v.InferOutput<typeof comparisonSchema>;

export const operations = {
  /** Sizes of the parts; one that is not there is left out. */
  measure: operation({ parts }, v.array(measuredSchema), measure),
  /** Reads all of the parts, and writes their manifest. */
  manifest: operation(
    {
      parts,
      to: v.string(),
      kind: v.string(),
      versions: v.record(v.string(), v.string()),
      owner,
    },
    nothing,
    async ({ parts, to, kind, versions, owner }, progress) => {
      const read = [];
      for (const { name, path } of parts) {
        read.push({ name, entries: await readSteady(name, path, progress) });
      }
      const createdAt = new Date().toISOString();
      const manifest = manifestOf({ kind, createdAt, versions }, read);
      writeWhole(to, JSON.stringify(manifest), owner);
    },
  ),
  /** How parts differ from a manifest; without `contents` by looks alone. */
  compare: operation(
    { parts, manifest: v.string(), contents: v.boolean() },
    comparisonSchema,
    compare,
  ),
  /** A tree or a file; what is in `to` goes. */
  replace: operation(fromTo, nothing, copyTree),
  rename: operation(fromTo, nothing, ({ from, to }) => renameSync(from, to)),
  remove: operation(
    { path: v.string() },
    nothing,
    ({ path }) => run("rm", ["-rf", "--", path]),
  ),
  /** Removes what is in a directory; it stays. */
  empty: operation(
    { path: v.string() },
    nothing,
    ({ path }) => emptyDirectory(path),
  ),
  /** Names of the parts that hold data. */
  inUse: operation({ parts }, v.array(v.string()), partsWithData),
  /** Gives what belongs to user `from` to the owner. */
  give: operation(
    { path: v.string(), from: v.number(), owner },
    nothing,
    ({ path, from, owner: { uid, gid } }) => {
      const chown = ["-exec", "chown", "-h", `${uid}:${gid}`, "{}", "+"];
      return run("find", [path, "-uid", String(from), ...chown]);
    },
  ),
  /** Of a ChromaDB that does not run; null where that cannot be told. */
  collections: operation(
    { path: v.string() },
    v.nullable(collectionsSchema),
    ({ path }) => keptCollections(path),
  ),
};

type Operations = typeof operations;
export type OperationName = keyof Operations;
export type Input<K extends OperationName> = v.InferOutput<
  Operations[K]["input"]
>;
export type Output<K extends OperationName> = v.InferOutput<
  Operations[K]["output"]
>;

/** Performs a request, which is the operation's input with its name as `op`. */
export async function perform(
  request: unknown,
  progress: Progress,
): Promise<unknown> {
  const names = Object.keys(operations) as OperationName[];
  const { op } = v.parse(v.object({ op: v.picklist(names) }), request);
  return await operations[op].perform(request, progress);
}

function operation<Fields extends v.ObjectEntries, Result>(
  fields: Fields,
  output: v.GenericSchema<unknown, Result>,
  run: (
    input: v.InferOutput<v.ObjectSchema<Fields, undefined>>,
    progress: Progress,
  ) => unknown,
) {
  const input = v.object(fields);
  const perform = async (request: unknown, progress: Progress) =>
    v.parse(output, await run(v.parse(input, request), progress));
  return { input, output, perform };
}

type Parts = v.InferOutput<typeof parts>;

/** A ChromaDB without collections holds none. */
async function partsWithData({ parts }: { parts: Parts }): Promise<string[]> {
  const found: string[] = [];
  for (const { name, path } of parts) {
    const names = existsSync(path) ? readdirSync(path) : [];
    const fresh = name === "chromadb" && names.join() === "chroma.sqlite3" &&
      (await keptCollections(path))?.length === 0;
    if (names.length > 0 && !fresh) found.push(name);
  }
  return found;
}

async function measure({ parts }: { parts: Parts }): Promise<Measured[]> {
  const present = parts.filter(({ path }) => existsSync(path));
  return await Promise.all(present.map(async ({ name, path }) => {
    const entries = await scanTree(path);
    return { name, entries: entries.length, ...sizeOf(entries) };
  }));
}

/** How often a tree may change while it is read. */
const attempts = 3;

/** A tree that looked the same before its contents were read and after. */
async function readSteady(
  name: string,
  path: string,
  progress: Progress,
): Promise<Entry[]> {
  let changed = "";
  for (let attempt = 0; attempt < attempts; attempt++) {
    const entries = await scanTree(path);
    await addChecksums(path, entries, progress);
    const found = compareTrees(entries, await scanTree(path));
    if (found.length === 0) return entries;
    // A directory changes with what is in it.
    const directories = new Set(
      entries.flatMap(({ type, path }) => type === "directory" ? [path] : []),
    );
    const file = found.find(({ path }) => !directories.has(path)) ?? found[0];
    changed = file?.path ?? "";
  }
  throw new Failure(
    "busy",
    `"${shown(join(name, changed))}" changes while it is read`,
    { hint: "Stop what writes to it, then run it again." },
  );
}

/** As many differences as are worth a look. */
const maxShown = 20;

async function compare(
  input: { parts: Parts; manifest: string; contents: boolean },
  progress: Progress,
): Promise<Comparison> {
  const manifest = readManifest(input.manifest);
  const found: string[] = [];
  for (const { name, path: root } of input.parts) {
    const entries = existsSync(root) ? await scanTree(root) : [];
    if (input.contents) await addChecksums(root, entries, progress);
    for (
      const { path, what } of compareTrees(entriesOf(manifest, name), entries)
    ) {
      found.push(`${shown(path === "" ? name : `${name}/${path}`)}: ${what}`);
    }
  }
  return { count: found.length, first: found.slice(0, maxShown) };
}
