// What the mover does, by name. It runs as root: names of trees are ours, those in them
// are anybody's.

import { existsSync, readdirSync, renameSync } from "node:fs";
import { dirname, join } from "node:path";
import * as v from "valibot";
import { version } from "../../cli/cli.ts";
import { Failure } from "../../std/errors.ts";
import { ensureDirectory, ownerOf, writeWhole } from "../../std/owned.ts";
import { addChecksums } from "./checksums.ts";
import { collectionsSchema, keptCollections } from "./collections.ts";
import { copyTree, emptyDirectory } from "./copy.ts";
import { entriesOf, manifestOf, readManifest, sizeOf } from "./manifest.ts";
import { insideMover } from "./places.ts";
import { type Progress, run } from "./run.ts";
import { compareTrees, type Entry, scanTree, shown } from "./tree.ts";

/** Names of trees, and the directory that they are in. */
const trees = { at: v.string(), parts: v.array(v.string()) };
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

export const operations = {
  /** Sizes of the trees; one that is not there is left out. */
  measure: operation(trees, v.array(measuredSchema), measure),
  /** Reads all of the trees, and writes their manifest. */
  manifest: operation(
    { ...trees, to: v.string(), kind: v.string() },
    nothing,
    writeManifest,
  ),
  /** How trees differ from a manifest; without `contents` by looks alone. */
  compare: operation(
    { ...trees, manifest: v.string(), contents: v.boolean() },
    comparisonSchema,
    compare,
  ),
  /** Makes `to` a copy of a tree or a file; what is in it goes. */
  replace: operation(fromTo, nothing, ({ from, to }, progress) => {
    ensureParent(to);
    return copyTree({ from, to }, progress);
  }),
  rename: operation(fromTo, nothing, ({ from, to }) => {
    ensureParent(to);
    renameSync(from, to);
  }),
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
  /** Names of the trees that hold data. */
  inUse: operation(trees, v.array(v.string()), treesWithData),
  /** Gives what belongs to user `from` to the owner of the home. */
  give: operation(
    { path: v.string(), from: v.number() },
    nothing,
    ({ path, from }) => {
      const { uid, gid } = ownerOf(insideMover.home);
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
export type Input<Name extends OperationName> = v.InferOutput<
  Operations[Name]["input"]
>;
export type Output<Name extends OperationName> = v.InferOutput<
  Operations[Name]["output"]
>;

/** Performs a request, which is an operation's input with its name as `op`. */
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

type Trees = v.InferOutput<v.ObjectSchema<typeof trees, undefined>>;

/** A ChromaDB without collections holds none. */
async function treesWithData({ at, parts }: Trees): Promise<string[]> {
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

async function measure({ at, parts }: Trees): Promise<Measured[]> {
  const present = parts.filter((name) => existsSync(join(at, name)));
  return await Promise.all(present.map(async (name) => {
    const entries = await scanTree(join(at, name));
    return { name, entries: entries.length, ...sizeOf(entries) };
  }));
}

async function writeManifest(
  { at, parts, to, kind }: Trees & { to: string; kind: string },
  progress: Progress,
): Promise<void> {
  const read = [];
  for (const name of parts) {
    read.push({ name, entries: await readSteady(at, name, progress) });
  }
  const createdAt = new Date().toISOString();
  const versions = {
    "hal-9000-dind": version,
    ...(kind === "migrate" ? { source: "0.5" } : {}),
  };
  const manifest = manifestOf({ kind, createdAt, versions }, read);
  writeWhole(to, JSON.stringify(manifest), ownerOf(insideMover.home));
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

/** As many differences as are worth a look. */
const maxShown = 20;

async function compare(
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

/** Makes the directory that a path is in, which is then the home's owner's. */
function ensureParent(path: string): void {
  const parent = dirname(path);
  if (existsSync(parent)) return;
  ensureParent(parent);
  ensureDirectory(parent, 0o700, ownerOf(insideMover.home));
}
