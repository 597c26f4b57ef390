// Makes the copy of a project that a session works in.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { Failure } from "../../std/errors.ts";
import type { Log } from "../../std/log.ts";
import { listed } from "../../std/text.ts";
import { addAll } from "./changes.ts";
import { takeRefs, takeRemotes, takeSettings } from "./clone-config.ts";
import { changesOf, takeChanges, takeIgnored } from "./clone-files.ts";
import { type Format, git, gitList, init, type Place, run } from "./git.ts";
import type { Host } from "./host.ts";
import { layOutLfs } from "./lfs.ts";
import { copyFile, copyObjects } from "./objects.ts";
import { showPercent } from "./progress.ts";
import { isBranchName } from "./refs.ts";
import { copySubmodules } from "./submodules.ts";
import {
  readSource,
  type Source,
  SourceConfig,
  type SourcePlaces,
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
  /** Whether a worker changes the files meanwhile. */
  live: v.boolean(),
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
  host: Host,
): Promise<CloneResult> {
  mkdirSync(request.target);
  return request.source === null
    ? await cloneDirectory(request, host)
    : await cloneRepository(request, request.source, host);
}

/** Commits the files of a directory, but not those that its .gitignore names. */
async function cloneDirectory(
  { tree, target, branch, ignored, live }: CloneRequest,
  host: Host,
): Promise<CloneResult> {
  const notices: string[] = [];
  const copy = await emptyCopy(target, "sha1", branch);
  if (tree === null) throw new Failure("failed", "There is no directory");
  host.log("Copying the files");
  const outside = {
    ...copy,
    workTree: tree,
    index: join(copy.gitDir, "index"),
  };
  // So that there is less to do while the worker stands still. A file may just vanish.
  if (live) await addAll(outside).catch(() => {});
  const { nested, taken } = await host.whileFrozen(async () => ({
    nested: await addAll(outside),
    taken: await takeIgnored(outside, tree, target, ignored, notices),
  }));
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
    await checkOut(copy, branch, host.log);
  }
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
  host: Host,
): Promise<CloneResult> {
  const { target, branch, live } = request;
  const { tree } = places;
  const notices: string[] = [];
  let source = await readSource(places);
  const copy = await emptyCopy(target, source.format, branch);
  const config = new SourceConfig(places.common, places.own);
  await takeSettings(config, copy, places);
  await takeRemotes(config, copy, notices);
  let history = await takeHistory(source, places, copy, branch, host.log);
  const { changes, ignored } = await host.whileFrozen(async () => {
    const later = live ? await readSource(places) : source;
    if (JSON.stringify(later) !== JSON.stringify(source)) {
      source = later;
      history = await takeHistory(source, places, copy, branch, host.log);
    }
    if (tree === null) return { changes: [], ignored: 0 };
    const changes = await changesOf(source, tree, places.own, copy);
    if (request.changes) await takeChanges(changes, tree, target, notices);
    const outside = { ...copy, workTree: tree };
    return {
      changes,
      ignored: await takeIgnored(
        outside,
        tree,
        target,
        request.ignored,
        notices,
      ),
    };
  });
  return {
    format: source.format,
    head: source.head,
    known: [
      ...new Set([
        ...source.refs.map(({ id }) => id),
        ...(source.head === null ? [] : [source.head]),
        ...history.known,
      ]),
    ],
    changed: changes.filter(({ untracked }) => !untracked).length,
    untracked: changes.filter(({ untracked }) => untracked).length,
    taken: request.changes,
    ignored,
    notices: [...notices, ...history.notices],
  };
}

/**
 * Copies what is committed, or what of it was added since. Returns the commits of submodules
 * and the content of Git LFS that the user's repository has.
 */
async function takeHistory(
  source: Source,
  places: SourcePlaces,
  copy: Place & { workTree: string },
  branch: string,
  log: Log,
): Promise<{ known: string[]; notices: string[] }> {
  const notices: string[] = [];
  await copyObjects(source.objects, join(copy.gitDir, "objects"), log);
  if (source.shallow.length > 0) {
    await copyFile(
      join(places.common, "shallow"),
      join(copy.gitDir, "shallow"),
    );
  }
  await takeRefs(source, copy);
  if (source.head === null) return { known: [], notices };
  log("Checking out the files");
  await run(copy, ["update-ref", `refs/heads/${branch}`, source.head]);
  await checkOut(copy, branch, log);
  const lfs = await layOutLfs(join(places.common, "lfs"), copy, notices, log);
  const own = [places.own, places.common];
  const modules = await copySubmodules(own, copy, notices, log);
  return { known: [...modules, ...lfs], notices };
}

async function checkOut(copy: Place, branch: string, log: Log): Promise<void> {
  await run(copy, ["checkout", "--progress", "--force", branch, "--"], {
    onError: showPercent(log, "Checking out the files"),
  });
  log.progress?.("");
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
