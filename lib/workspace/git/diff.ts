// Compares a session's copy with the user's branch. Reads both, and writes to neither.

import { join } from "node:path";
import * as v from "valibot";
import { Failure } from "../../std/errors.ts";
import { type Change, changesIn } from "./changes.ts";
import { git, type Place, run, withoutCaches } from "./git.ts";
import { Limits } from "./limits.ts";
import { copyIndex, extraBranches, openCopy, treeOfChanges } from "./pack.ts";
import { readSource, type Source } from "./source.ts";
import { requireWeight } from "./weight.ts";

/** A session's copy, and the user's repository. */
export const bothSchema = v.object({
  tree: v.string(),
  format: v.picklist(["sha1", "sha256"]),
  /** The user's repository; null for a directory without one. */
  source: v.nullable(v.object({
    common: v.string(),
    own: v.string(),
    tree: v.nullable(v.string()),
  })),
  /** The commit that the session began with, if the user has no repository. */
  base: v.nullable(v.string()),
  scratch: v.string(),
  /** See limits.ts. */
  maxBytes: v.optional(v.number()),
});

export const diffRequestSchema = v.object({
  do: v.literal("diff"),
  ...bothSchema.entries,
  changes: v.boolean(),
  /** Only names and numbers of lines. */
  stat: v.boolean(),
});

export const diffResultSchema = v.object({
  text: v.string(),
  /** Since the session left the user's branch. */
  commits: v.number(),
  files: v.number(),
  insertions: v.number(),
  deletions: v.number(),
  /** Number of paths that are not committed, if they are not in the text. */
  left: v.number(),
});

export async function diff(
  request: v.InferOutput<typeof diffRequestSchema>,
): Promise<v.InferOutput<typeof diffResultSchema>> {
  const { changes, stat } = request;
  const limits = new Limits(request.maxBytes);
  const both = await openBoth(request, limits);
  const { place, head, files, shared, from } = both;
  const tip = changes && files.length > 0
    ? await treeOfChanges(place, limits)
    : head;
  if (tip !== null && tip !== head) {
    // An index can name files that are not in the working tree.
    const tips = { [extraBranches.changes]: tip };
    await requireWeight(place, tips, head, limits);
  }
  const compared = async (...format: string[]) =>
    tip === null ? "" : await git(place, [
      ...["diff", "--no-ext-diff", "--no-textconv", "--no-color"],
      ...["--find-renames", "--submodule=short", ...format, from, tip, "--"],
    ], {
      maxBytes: maxTextBytes,
      exceeded: () =>
        new Failure("unsafe", "The difference is too long to be shown", {
          hint: "See its files with --stat, or fetch it, and use git diff.",
        }),
      config: withoutCaches,
    });
  const commits = head === null ? "0" : await git(place, [
    ...["rev-list", "--count", head, ...(shared ? [`^${shared}`] : [])],
  ], { config: withoutCaches });
  return {
    // The width of a terminal is not known here.
    text: await compared(...(stat ? ["--stat=100"] : [])),
    commits: Number(commits),
    ...numbersIn(await compared("--shortstat")),
    left: changes ? 0 : files.length,
  };
}

/** Both sides, in a repository of our own that has the objects of both. */
export async function openBoth(
  request: v.InferOutput<typeof bothSchema>,
  limits: Limits,
): Promise<{
  place: Place & { workTree: string };
  source: Source | null;
  head: string | null;
  /** What is not committed in the copy. */
  files: Change[];
  /** The commit at which the session left the user's branch; "" for none. */
  shared: string;
  /** That, or an empty tree. */
  from: string;
}> {
  const { tree, scratch } = request;
  const source = request.source && await readSource(request.source);
  const opened = await openCopy(request, source ? [source.objects] : []);
  const index = await copyIndex(tree, scratch);
  const place = { ...opened.place, workTree: tree, index };
  const { head } = opened;
  const files = await changesIn(place, head, limits);
  const theirs = source ? source.head : request.base;
  const shared = head && theirs
    ? (await run(place, ["merge-base", theirs, head], {
      accept: [0, 1],
      config: withoutCaches,
    })).text.trim()
    : "";
  const from = shared ||
    await git(place, ["mktree"], { cwd: join(scratch, "view") });
  return { place, source, head, files, shared, from };
}

function numbersIn(shortstat: string) {
  const number = (word: string) =>
    Number(new RegExp(`(\\d+) ${word}`).exec(shortstat)?.[1] ?? 0);
  return {
    files: number("file"),
    insertions: number("insertion"),
    deletions: number("deletion"),
  };
}

/** Less than a helper may print, since JSON needs more. */
const maxTextBytes = 24 * 1024 ** 2;
