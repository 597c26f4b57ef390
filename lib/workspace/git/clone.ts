// Makes the copy of a project that a session works in.

import { existsSync, lstatSync, mkdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import * as v from "valibot";
import { Failure } from "../../std/errors.ts";
import { printable } from "../../std/text.ts";
import { addAll, type Change, changesIn } from "./changes.ts";
import { type Format, git, gitList, init, type Place, run } from "./git.ts";
import { layOutLfs } from "./lfs.ts";
import {
  copyFile,
  copyObjects,
  copyTree,
  namesIn,
  type Progress,
} from "./objects.ts";
import { isBranchName } from "./refs.ts";
import { copySubmodules } from "./submodules.ts";
import {
  readSource,
  type Source,
  SourceConfig,
  type SourcePlaces,
  urlForWorkers,
} from "./source.ts";

export const cloneRequestSchema = v.object({
  do: v.literal("clone"),
  /** Null for a directory that is no repository. */
  source: v.nullable(v.object({
    common: v.string(),
    own: v.string(),
    tree: v.nullable(v.string()),
  })),
  /** The directory; the same as the repository's working tree, if it has one. */
  tree: v.nullable(v.string()),
  /** The directory to create. */
  target: v.string(),
  branch: v.string(),
  /** Whether to take along what is not committed. */
  changes: v.boolean(),
  /** Patterns of ignored files to take along. */
  ignored: v.array(v.string()),
});

export type CloneRequest = v.InferOutput<typeof cloneRequestSchema>;

export const cloneResultSchema = v.object({
  format: v.picklist(["sha1", "sha256"]),
  /** The commit that the session begins with; null if there is none yet. */
  head: v.nullable(v.string()),
  /** What the user's repository has: commits, and content of Git LFS. */
  known: v.array(v.string()),
  /** Number of paths that are not committed, and whether they are in the copy. */
  changed: v.number(),
  untracked: v.number(),
  taken: v.boolean(),
  ignored: v.number(),
  /** What is different in the copy: a line each. */
  notices: v.array(v.string()),
});

export type CloneResult = v.InferOutput<typeof cloneResultSchema>;

/** The name of the user's repository in a copy. */
export const hostRemote = "host";

const author = {
  GIT_AUTHOR_NAME: "claudy",
  GIT_AUTHOR_EMAIL: "claudy@localhost",
  GIT_COMMITTER_NAME: "claudy",
  GIT_COMMITTER_EMAIL: "claudy@localhost",
};

export async function clone(
  request: CloneRequest,
  progress: Progress,
): Promise<CloneResult> {
  mkdirSync(request.target);
  const notices: string[] = [];
  return request.source === null
    ? await cloneDirectory(request, notices, progress)
    : await cloneRepository(request, request.source, notices, progress);
}

/** Commits the files of a directory, but not those that its .gitignore names. */
async function cloneDirectory(
  { tree, target, branch, ignored }: CloneRequest,
  notices: string[],
  progress: Progress,
): Promise<CloneResult> {
  const copy = await emptyCopy(target, "sha1", branch);
  if (tree === null) throw new Failure("failed", "There is no directory");
  progress("Copying the files");
  const outside = {
    ...copy,
    workTree: tree,
    index: join(copy.gitDir, "index"),
  };
  const nested = await addAll(outside);
  if (nested.length > 0) {
    notices.push(`Repositories in it are not in the copy: ${listed(nested)}`);
  }
  const entries = await gitList(outside, ["ls-files", "-z"]);
  if (entries.length > 0) {
    await run(outside, [
      "commit",
      "--quiet",
      "--message",
      "Files of the project",
    ], {
      env: author,
    });
    await run(copy, ["checkout", "--quiet", "--force", branch, "--"]);
  }
  const taken = await takeIgnored(outside, tree, target, ignored);
  const head = entries.length > 0
    ? await git(copy, ["rev-parse", "HEAD"])
    : null;
  return {
    format: "sha1",
    head,
    // Nothing of it is in the user's directory.
    known: [],
    changed: 0,
    untracked: 0,
    taken: true,
    ignored: taken,
    notices,
  };
}

async function cloneRepository(
  request: CloneRequest,
  places: SourcePlaces,
  notices: string[],
  progress: Progress,
): Promise<CloneResult> {
  const { target, branch } = request;
  const source = await readSource(places);
  const copy = await emptyCopy(target, source.format, branch);
  await copyObjects(source.objects, join(copy.gitDir, "objects"), progress);
  if (source.shallow.length > 0) {
    await copyFile(
      join(places.common, "shallow"),
      join(copy.gitDir, "shallow"),
    );
  }
  const config = new SourceConfig(places.common, places.own);
  await takeSettings(config, copy, places);
  await takeRemotes(config, copy, notices);
  await takeRefs(source, copy);
  let modules: string[] = [];
  let lfs: string[] = [];
  if (source.head !== null) {
    progress("Checking out the files");
    await run(copy, ["update-ref", `refs/heads/${branch}`, source.head]);
    await run(copy, ["checkout", "--quiet", "--force", branch, "--"]);
    lfs = await layOutLfs(
      join(places.common, "lfs"),
      copy,
      notices,
      progress,
    );
    modules = await copySubmodules(
      [places.own, places.common],
      copy,
      notices,
      progress,
    );
  }
  const changes = places.tree === null
    ? []
    : await changesOf(source, places.tree, places.own, copy);
  if (request.changes && places.tree !== null) {
    await takeChanges(changes, places.tree, target, notices);
  }
  const ignored = places.tree === null ? 0 : await takeIgnored(
    { ...copy, workTree: places.tree },
    places.tree,
    target,
    request.ignored,
  );
  return {
    format: source.format,
    head: source.head,
    known: [
      ...new Set([
        ...source.refs.map(({ id }) => id),
        ...(source.head === null ? [] : [source.head]),
        ...modules,
        ...lfs,
      ]),
    ],
    changed: changes.filter(({ untracked }) => !untracked).length,
    untracked: changes.filter(({ untracked }) => untracked).length,
    taken: request.changes,
    ignored,
    notices,
  };
}

async function emptyCopy(
  target: string,
  format: Format,
  branch: string,
): Promise<Place & { workTree: string }> {
  if (!isBranchName(branch)) {
    throw new Failure("usage", `"${branch}" cannot be the name of a branch`);
  }
  const gitDir = join(target, ".git");
  await init(gitDir, { format, bare: false });
  const copy = { gitDir, workTree: target };
  await run(copy, ["symbolic-ref", "HEAD", `refs/heads/${branch}`]);
  return copy;
}

/** Settings that describe files, and not programs. */
const settings = [
  "core.fileMode",
  "core.symlinks",
  "core.ignoreCase",
  "core.precomposeUnicode",
  "core.autocrlf",
  "core.eol",
  "core.sparseCheckout",
  "core.sparseCheckoutCone",
];

async function takeSettings(
  config: SourceConfig,
  copy: Place,
  { common, own }: SourcePlaces,
): Promise<void> {
  for (const key of settings) {
    const value = await config.value(key);
    if (value !== undefined) await run(copy, ["config", key, value]);
  }
  const exclude = join(common, "info/exclude");
  if (existsSync(exclude)) {
    await copyFile(exclude, join(copy.gitDir, "info/exclude"));
  }
  const sparse = join(own, "info/sparse-checkout");
  if (await config.value("core.sparseCheckout") && existsSync(sparse)) {
    await copyFile(sparse, join(copy.gitDir, "info/sparse-checkout"));
  }
}

/** The remotes of the user by their names, without credentials, and the user's repository. */
async function takeRemotes(
  config: SourceConfig,
  copy: Place,
  notices: string[],
): Promise<void> {
  const left = new Set<string>();
  for (
    const [key, value] of await config.matching(
      "^remote\\..*\\.(url|pushurl|fetch)$",
    )
  ) {
    const match = /^remote\.(.+)\.(url|pushurl|fetch)$/s.exec(key);
    const [, name = "", what = ""] = match ?? [];
    if (!isBranchName(name) || name === hostRemote) continue;
    const kept = what === "fetch" ? value : urlForWorkers(value);
    if (kept === undefined) left.add(name);
    else await run(copy, ["config", "--add", `remote.${name}.${what}`, kept]);
  }
  if (left.size > 0) {
    notices.push(
      `Remotes without a URL that a worker can use: ${listed([...left])}`,
    );
  }
  const refspec = `+refs/heads/*:refs/remotes/${hostRemote}/*`;
  await run(copy, ["config", `remote.${hostRemote}.fetch`, refspec]);
  // For `git checkout NAME`, if several remotes have such a branch.
  await run(copy, ["config", "checkout.defaultRemote", hostRemote]);
}

/** The user's branches are those of the remote `host`. */
async function takeRefs({ refs, branch }: Source, copy: Place): Promise<void> {
  const renamed = refs.flatMap((ref) => {
    const name = nameInCopy(ref.name);
    return name === undefined ? [] : [{ ...ref, name }];
  });
  const lines = renamed.filter(({ target }) => target === "")
    .map(({ name, id }) => `create ${name} ${id}\n`);
  await run(copy, ["update-ref", "--stdin"], { input: lines.join("") });
  if (lines.length > 0) await run(copy, ["pack-refs", "--all"]);
  const links = renamed.filter(({ target }) => target !== "")
    .map(({ name, target }) => [name, nameInCopy(target)]);
  if (
    branch !== null && refs.some(({ name }) => name === `refs/heads/${branch}`)
  ) {
    const main = `refs/remotes/${hostRemote}`;
    links.push([`${main}/HEAD`, `${main}/${branch}`]);
  }
  for (const [name = "", target] of links) {
    if (target) await run(copy, ["symbolic-ref", name, target]);
  }
}

function nameInCopy(name: string): string | undefined {
  const [, kind = "", rest = ""] = /^refs\/([^/]+)\/(.+)$/s.exec(name) ?? [];
  if (kind === "heads") return `refs/remotes/${hostRemote}/${rest}`;
  // Not those of a remote that is called so, and of other sessions.
  const taken = [`${hostRemote}/`, "claudy/"]
    .some((prefix) => rest.startsWith(prefix));
  return kind === "tags" || kind === "remotes" && !taken ? name : undefined;
}

async function changesOf(
  source: Source,
  tree: string,
  own: string,
  copy: Place & { workTree: string },
): Promise<Change[]> {
  const index = join(copy.gitDir, "index.host");
  const part = namesIn(own).filter((name) => /^sharedindex\./.test(name));
  for (const name of part) {
    await copyFile(join(own, name), join(copy.gitDir, name));
  }
  const present = existsSync(join(own, "index"));
  if (present) await copyFile(join(own, "index"), index);
  try {
    return await changesIn({ ...copy, workTree: tree, index }, source.head);
  } finally {
    for (
      const name of [
        index,
        ...part.map((name) => join(copy.gitDir, name)),
      ]
    ) {
      rmSync(name, { force: true });
    }
  }
}

/**
 * Files only: a directory among the changes is a repository of its own, whose configuration
 * may have credentials, or was a file, and its files are changes too.
 */
async function takeChanges(
  changes: Change[],
  tree: string,
  target: string,
  notices: string[],
): Promise<void> {
  const repositories: string[] = [];
  const files: string[] = [];
  for (const { path } of changes) {
    const plain = path.replace(/\/$/, "");
    // An index may name what git does not track.
    if (plain.split("/").some((part) => /^(?:\.{0,2}|\.git)$/i.test(part))) {
      continue;
    }
    const found = kindOf(tree, plain);
    if (found === "file") files.push(plain);
    const isKept = found === "directory" &&
      existsSync(join(tree, plain, ".git"));
    if (isKept) repositories.push(plain);
    // First, so that a link that has become a directory is not followed.
    else rmSync(join(target, plain), { recursive: true, force: true });
  }
  if (repositories.length > 0) {
    notices.push(
      `Changes of repositories in it are not in the copy: ${
        listed(repositories)
      }`,
    );
  }
  if (changes.some(({ path }) => path.includes("\ufffd"))) {
    notices.push("Files whose names are not UTF-8 are not in the copy");
  }
  await copyTree(tree, target, files);
}

/** Undefined if it is missing, or if a directory of its path is a link. */
function kindOf(tree: string, path: string): "file" | "directory" | undefined {
  const above = dirname(path);
  if (above !== "." && kindOf(tree, above) !== "directory") return undefined;
  const stat = lstatSync(join(tree, path), { throwIfNoEntry: false });
  return stat && (stat.isDirectory() ? "directory" : "file");
}

async function takeIgnored(
  place: Place,
  tree: string,
  target: string,
  patterns: string[],
): Promise<number> {
  if (patterns.length === 0) return 0;
  const found = await gitList(place, [
    ...["ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--"],
    ...patterns.map((pattern) => `:(glob)${pattern}`),
  ]);
  await copyTree(tree, target, found);
  return found.length;
}

/** The first of these names, for a line that is printed. */
function listed(names: string[]): string {
  const shown = names.slice(0, 5).map(printable).join(", ");
  const rest = names.length - 5;
  return rest > 0 ? `${shown} and ${rest} more` : shown;
}
