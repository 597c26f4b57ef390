// The mover's operations. It runs as root: the names of trees are trusted, the
// names inside them are not.

import { existsSync, renameSync } from "node:fs";
import { dirname } from "node:path";
import * as v from "valibot";
import { ensureDirectory, ownerOf } from "../../std/owned.ts";
import { collectionsSchema, keptCollections } from "./collections.ts";
import { findConversations, foundSchema } from "./conversations.ts";
import { copyTree, emptyDirectory } from "./copy.ts";
import {
  copiedSchema,
  copyConversation,
  copyConversationFields,
} from "./copy-conversation.ts";
import { insideMover } from "./places.ts";
import {
  compare,
  comparisonSchema,
  examine,
  measure,
  measuredSchema,
  treesSchema,
  withData,
  writeManifest,
} from "./reading.ts";
import { type Progress, run } from "./run.ts";

const trees = treesSchema.entries;
const path = { path: v.string() };
const fromTo = { from: v.string(), to: v.string() };
const nothing = v.pipe(v.unknown(), v.transform(() => null));

export const operations = {
  measure: operation(trees, v.array(measuredSchema), measure),
  withData: operation(trees, v.array(v.string()), withData),
  manifest: operation(
    { ...trees, to: v.string(), kind: v.string() },
    nothing,
    writeManifest,
  ),
  compare: operation(
    { ...trees, manifest: v.string(), contents: v.boolean() },
    comparisonSchema,
    compare,
  ),
  examine: operation(trees, comparisonSchema, examine),
  /** Makes `to` a copy of a tree or a file; deletes what was there. */
  replace: operation(fromTo, nothing, ({ from, to }, progress) => {
    ensureParent(to);
    return copyTree({ from, to }, progress);
  }),
  rename: operation(fromTo, nothing, ({ from, to }) => {
    ensureParent(to);
    renameSync(from, to);
  }),
  remove: operation(path, nothing, ({ path }) => run("rm", ["-rf", path])),
  /** Empties a directory. */
  empty: operation(path, nothing, ({ path }) => emptyDirectory(path)),
  /** Changes the owner of files of user `from` to the owner of the home. */
  give: operation({ ...path, from: v.number() }, nothing, ({ path, from }) => {
    const { uid, gid } = ownerOf(insideMover.home);
    const chown = ["-exec", "chown", "-h", `${uid}:${gid}`, "{}", "+"];
    return run("find", [path, "-uid", String(from), ...chown]);
  }),
  findConversations: operation(path, foundSchema, findConversations),
  copyConversation: operation(
    copyConversationFields,
    copiedSchema,
    copyConversation,
  ),
  /** Collections of a stopped ChromaDB; null if they cannot be read. */
  collections: operation(
    path,
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

/** Performs a request: an operation's input, with the operation's name as `op`. */
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

/** Creates the parent directory of a path, owned by the home's owner. */
function ensureParent(path: string): void {
  const parent = dirname(path);
  if (existsSync(parent)) return;
  ensureParent(parent);
  ensureDirectory(parent, 0o700, ownerOf(insideMover.home));
}
