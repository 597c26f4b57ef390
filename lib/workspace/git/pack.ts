// Reads the copy that a session works in, which may be hostile: packs its commits into a
// file. Runs where only the copy can be seen, read-only.

import {
  closeSync,
  lstatSync,
  mkdirSync,
  openSync,
  readSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { namesUpTo } from "../../std/directory.ts";
import { Failure } from "../../std/errors.ts";
import { plainText } from "../../std/plain-file.ts";
import { runProgram } from "../../std/program.ts";
import { aloneElsewhere, commitsAlone, notInTree, unreadIn } from "./alone.ts";
import { binarySize } from "../../std/units.ts";
import { addAll, changesIn } from "./changes.ts";
import { commitsAmong } from "./commits.ts";
import { git, type Place, run, view, withoutCaches } from "./git.ts";
import { Limits } from "./limits.ts";
import { copyFile } from "./objects.ts";
import {
  asFile,
  isBranchName,
  parentsOf,
  readRefs,
  readShallow,
  type Refs,
} from "./refs.ts";
import { readSource } from "./source.ts";
import { requireWeight } from "./weight.ts";

export const packRequestSchema = v.object({
  do: v.literal("pack"),
  /** The copy. */
  tree: v.string(),
  format: v.picklist(["sha1", "sha256"]),
  /** Commits that the user's repository has. */
  known: v.array(v.string()),
  /** Whether to make a commit of what is not committed. */
  changes: v.boolean(),
  /** The tree of changes that were fetched before: they do not count. */
  fetchedTree: v.nullable(v.string()),
  /** An empty directory; the pack is written to `pack` in it. */
  scratch: v.string(),
  /** False to count only, also what is in submodules and Git LFS. */
  write: v.boolean(),
  /** The commit that the session began with. */
  base: v.optional(v.nullable(v.string())),
  /** See limits.ts. */
  maxBytes: v.optional(v.number()),
});

export type PackRequest = v.InferInput<typeof packRequestSchema>;

const idSchema = v.pipe(v.string(), v.regex(/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/));

export const packResultSchema = v.object({
  /** Commits by the name of their branch. */
  branches: v.record(v.pipe(v.string(), v.check(isBranchName)), idSchema),
  /** The branch that is checked out; null for none. */
  head: v.nullable(v.pipe(v.string(), v.check(isBranchName))),
  /** The number of commits that the user's repository does not have. */
  commits: v.number(),
  changed: v.number(),
  untracked: v.number(),
  /** The tree of what is not committed, if it was asked for. */
  changesTree: v.nullable(v.string()),
  /** Names of branches that git does not allow, or whose commit is missing. */
  refused: v.array(v.string()),
  /** Files and directories that are not committed, and cannot be read. */
  unread: v.array(v.string()),
});

export type PackResult = v.InferOutput<typeof packResultSchema>;

/** What is not committed, and a detached HEAD, come as branches of these names. */
export const extraBranches = {
  changes: "uncommitted",
  detached: "detached",
} as const;

export async function pack(request: PackRequest): Promise<PackResult> {
  const { tree, scratch, known } = request;
  const limits = new Limits(request.maxBytes);
  const { place, refs, head } = await openCopy(request, []);
  const inTree = { ...place, workTree: tree };
  const index = await copyIndex(tree, scratch);
  const files = await changesIn({ ...inTree, index }, head, limits);
  const branches = takeNames(refs);
  if (refs.detached) branches[extraBranches.detached] = refs.detached;
  let changesTree: string | null = null;
  if (files.length > 0 && (request.changes || request.fetchedTree !== null)) {
    const outside = { ...inTree, index };
    changesTree = await treeOfChanges(outside, limits);
    if (request.changes) {
      branches[extraBranches.changes] = await commitOf(
        outside,
        changesTree,
        head,
      );
    }
  }
  const wanted = [...new Set(Object.values(branches))];
  const { present } = await commitsAmong(place, known);
  const revisions = [...wanted, ...present.map((id) => `^${id}`)]
    .map((line) => `${line}\n`).join("");
  if (request.write) {
    await run(place, [
      ...["pack-objects", "--revs", "--thin", "--delta-base-offset"],
      ...["--quiet", "--stdout"],
    ], {
      input: revisions,
      output: join(scratch, "pack"),
      config: withoutCaches,
      maxBytes: limits.bytes,
      exceeded: () => limits.exceeded("Its commits are too large"),
    });
  }
  const fetched = changesTree !== null && changesTree === request.fetchedTree;
  const unread = await unreadIn(inTree, files);
  const left = [
    ...new Set([
      ...(fetched ? await notInTree(inTree, files) : files),
      ...unread,
    ]),
  ];
  const elsewhere = request.write
    ? { commits: 0, changed: 0 }
    : await aloneElsewhere(request);
  const commits = await commitsAlone(place, refs, wanted, known);
  const untracked = left.filter(({ untracked }) => untracked).length;
  return {
    branches,
    head: refs.head ?? (refs.detached ? extraBranches.detached : null),
    commits: commits + elsewhere.commits,
    changed: left.length - untracked + elsewhere.changed,
    untracked,
    changesTree,
    refused: refs.refused,
    unread: unread.map(({ path }) => path),
  };
}

/** The branches, but not those with the names of ours. */
function takeNames(refs: Refs): Record<string, string> {
  const own = Object.values(extraBranches).map(asFile);
  const taken = Object.entries(refs.branches).filter(([name, id]) => {
    const isFree = ![name, ...parentsOf(name)].some((part) =>
      own.includes(asFile(part))
    );
    if (!isFree) {
      refs.refused.push(name);
      refs.others.push(id);
    }
    return isFree;
  });
  return Object.fromEntries(taken);
}

/** A repository of our own with the objects and branches of the copy. */
export async function openCopy(
  { tree, format, scratch, known = [], base = null, maxBytes }:
    & Pick<PackRequest, "tree" | "format" | "scratch" | "base" | "maxBytes">
    & { known?: string[] },
  others: string[],
): Promise<{ place: Place; refs: Refs; head: string | null }> {
  const gitDir = join(tree, ".git");
  if (!lstatSync(gitDir, { throwIfNoEntry: false })?.isDirectory()) {
    throw new Failure("failed", "Its .git is not a directory", {
      hint: "See what the session did with it: claudy attach --shell",
    });
  }
  await refusePipes(tree);
  const place = await view(join(scratch, "view"), {
    objects: [join(gitDir, "objects"), ...others],
    format,
    shallow: readShallow(gitDir),
  });
  await takeSettings(gitDir, place);
  const limits = new Limits(maxBytes);
  const refs = readRefs(gitDir, limits);
  const given = { ...refs.branches, HEAD: refs.detached ?? "" };
  const { present } = await commitsAmong(place, Object.values(given));
  const isThere = (id: string | null) => id !== null && present.includes(id);
  for (const [name, id] of Object.entries(refs.branches)) {
    if (isThere(id)) continue;
    delete refs.branches[name];
    refs.refused.push(name);
    refs.unread++;
  }
  if (!isThere(refs.detached)) refs.detached = null;
  const head = refs.detached ??
    (refs.head === null ? null : refs.branches[refs.head] ?? null);
  if (head !== null) {
    await run(place, ["update-ref", "--no-deref", "HEAD", head]);
    // git status and git diff would read all its files.
    const isNew = head !== base && !known.includes(head);
    if (isNew) await requireWeight(place, { HEAD: head }, base, limits);
  }
  return { place, refs, head };
}

/** git would wait for data from a pipe. */
export async function refusePipes(tree: string): Promise<void> {
  const { stdout } = await runProgram([
    ...["find", tree, "(", "-name", ".gitignore", "-o", "-name"],
    ...[".gitattributes", "-o", "-path", "*/.git/*", ")"],
    ...["-xtype", "p", "-printf", "%P", "-quit"],
  ]);
  if (stdout === "") return;
  throw new Failure("failed", `Its ${stdout} is a pipe`, {
    hint: "See what the session did with it: claudy attach --shell",
  });
}

/** Settings and patterns that describe files: those that git in the copy uses. */
async function takeSettings(gitDir: string, place: Place): Promise<void> {
  const limits = { maxBytes: 1024 ** 2 };
  const exclude = plainText(join(gitDir, "info/exclude"), limits);
  if (exclude !== undefined) {
    mkdirSync(join(place.gitDir, "info"), { recursive: true });
    writeFileSync(join(place.gitDir, "info/exclude"), exclude);
  }
  const text = plainText(join(gitDir, "config"), limits);
  if (text === undefined) return;
  const given = join(place.gitDir, "config.copy");
  writeFileSync(given, text);
  const { exitCode, text: entries } = await run(place, [
    ...["config", "--file", given, "--no-includes", "--null"],
    ...["--get-regexp", `^core\\.(${fileSettings.join("|")})$`],
    // A configuration that git cannot read has no effect in the copy either.
  ], { accept: [0, 1, 2, 3, 128] });
  if (exitCode !== 0) return;
  for (const entry of entries.split("\0")) {
    const match = /^(core\.[a-z]+)\n(true|false|input|lf|crlf|native)$/i
      .exec(entry);
    if (match) await run(place, ["config", match[1] ?? "", match[2] ?? ""]);
  }
}

const fileSettings = [
  ...["filemode", "symlinks", "ignorecase", "precomposeunicode"],
  ...["autocrlf", "eol"],
];

/** Another one would have no times of the files, and all would have to be read. */
export async function copyIndex(
  tree: string,
  scratch: string,
): Promise<string> {
  const gitDir = join(tree, ".git");
  const names = namesUpTo(maxEntries, gitDir)
    .filter((name) =>
      name === "index" || /^sharedindex\.[0-9a-f]+$/.test(name)
    );
  for (const name of names.slice(0, maxIndexes)) {
    const stat = lstatSync(join(gitDir, name), { throwIfNoEntry: false });
    // Without one, all files are read.
    if (!stat?.isFile() || stat.size > maxIndexBytes) continue;
    const to = name === "index"
      ? join(scratch, "index")
      : join(scratch, "view", name);
    await copyFile(join(gitDir, name), to);
  }
  return join(scratch, "index");
}

const maxEntries = 10_000;
const maxIndexes = 8;
const maxIndexBytes = 256 * 1024 ** 2;

const author = {
  GIT_AUTHOR_NAME: "claudy",
  GIT_AUTHOR_EMAIL: "claudy@localhost",
  GIT_COMMITTER_NAME: "claudy",
  GIT_COMMITTER_EMAIL: "claudy@localhost",
};

export async function treeOfChanges(
  place: Place & { workTree: string },
  limits: Limits,
): Promise<string> {
  await requireFewBytes(place, limits);
  // One that cannot be read does not keep the others back.
  await addAll(place, { flags: ["--ignore-errors"], accept: [0, 1] });
  return await git(place, ["write-tree"]);
}

/** git add makes an object of each file. */
async function requireFewBytes(
  place: Place & { workTree: string },
  limits: Limits,
): Promise<void> {
  // Names may not be UTF-8, so they are not read here.
  const list = join(place.gitDir, "changed");
  await run(place, [
    ...["ls-files", "-z", "--modified", "--others", "--exclude-standard"],
  ], { output: list });
  const { stdout } = await runProgram([
    ...["env", `--chdir=${place.workTree}`, "xargs", "-0", "-r"],
    ...[`--arg-file=${list}`, "stat", "--format=%s", "--"],
  ]);
  const bytes = stdout.split("\n")
    .reduce((sum, size) => sum + Number(size), 0);
  if (bytes <= limits.bytes) return;
  throw limits.exceeded(
    `What is not committed takes ${binarySize(bytes)}`,
  );
}

async function commitOf(
  place: Place,
  tree: string,
  head: string | null,
): Promise<string> {
  // So that the same changes are the same commit each time.
  const date = head === null
    ? "@0 +0000"
    : await git(place, ["show", "--no-patch", "--format=%cI", head]);
  return await git(place, [
    ...["commit-tree", tree, "-m", "What the session has not committed"],
    ...(head === null ? [] : ["-p", head]),
  ], { env: { ...author, GIT_AUTHOR_DATE: date, GIT_COMMITTER_DATE: date } });
}

export const offerRequestSchema = v.object({
  do: v.literal("offer"),
  source: v.object({
    common: v.string(),
    own: v.string(),
    tree: v.nullable(v.string()),
  }),
  /** Commits that the copy has. */
  known: v.array(v.string()),
  scratch: v.string(),
});

export const offerResultSchema = v.object({
  branches: v.record(v.string(), idSchema),
});

/** Packs the user's branches. */
export async function offer(
  { source: places, known, scratch }: v.InferOutput<typeof offerRequestSchema>,
): Promise<v.InferOutput<typeof offerResultSchema>> {
  const { refs, place } = await readSource(places);
  const branches = Object.fromEntries(refs.flatMap(({ name, id, target }) => {
    const branch = /^refs\/heads\/(.+)$/s.exec(name)?.[1];
    return branch === undefined || target !== "" || !isBranchName(branch)
      ? []
      : [[branch, id]];
  }));
  const { present } = await commitsAmong(place, known);
  const revisions = [
    ...Object.values(branches),
    ...present.map((id) => `^${id}`),
  ];
  await run(place, [
    ...["pack-objects", "--revs", "--thin", "--delta-base-offset"],
    ...["--quiet", "--stdout"],
  ], {
    input: revisions.map((line) => `${line}\n`).join(""),
    output: join(scratch, "pack"),
  });
  return { branches };
}

/** The number of objects in a pack, see gitformat-pack(5). */
export function objectsIn(file: string): number {
  const opened = openSync(file, "r");
  try {
    const header = new Uint8Array(12);
    readSync(opened, header);
    return new DataView(header.buffer).getUint32(8);
  } finally {
    closeSync(opened);
  }
}
