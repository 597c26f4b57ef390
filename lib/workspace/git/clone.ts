// Makes the copy of a project that a session works in.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { Failure } from "../../std/errors.ts";
import { listed } from "../../std/text.ts";
import { addAll } from "./changes.ts";
import { takeRefs, takeRemotes, takeSettings } from "./clone-config.ts";
import { changesOf, takeChanges, takeIgnored } from "./clone-files.ts";
import { type Format, git, gitList, init, type Place, run } from "./git.ts";
import { layOutLfs } from "./lfs.ts";
import { copyFile, copyObjects, type Progress } from "./objects.ts";
import { isBranchName } from "./refs.ts";
import { copySubmodules } from "./submodules.ts";
import { readSource, SourceConfig, type SourcePlaces } from "./source.ts";

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
  const taken = await takeIgnored(outside, tree, target, ignored, notices);
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
    notices,
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
