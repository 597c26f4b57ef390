// A user's repository, the copy of a session, and what goes between them, by the git of this
// machine.

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import * as assert from "uvu/assert";
import { clone, type CloneRequest } from "../../lib/workspace/git/clone.ts";
import { hostWithoutFreeze } from "../../lib/workspace/git/host.ts";
import { pack, type PackRequest } from "../../lib/workspace/git/pack.ts";
import { receive } from "../../lib/workspace/git/receive.ts";

export interface Context {
  root: string;
}

export const env = {
  PATH: process.env["PATH"],
  HOME: "/nonexistent",
  GIT_CONFIG_GLOBAL: "/dev/null",
  GIT_CONFIG_NOSYSTEM: "1",
  GIT_AUTHOR_NAME: "a",
  GIT_AUTHOR_EMAIL: "a@b",
  GIT_COMMITTER_NAME: "a",
  GIT_COMMITTER_EMAIL: "a@b",
};

/** The git of a user, or of an agent. */
export function git(directory: string, ...args: string[]): string {
  return execFileSync("git", ["-c", "protocol.file.allow=always", ...args], {
    cwd: directory,
    env: env as NodeJS.ProcessEnv,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  }).replace(/\n$/, "");
}

export function write(directory: string, files: Record<string, string>): void {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(directory, name)), { recursive: true });
    writeFileSync(join(directory, name), text);
  }
}

export function commit(
  directory: string,
  files: Record<string, string>,
): string {
  write(directory, files);
  git(directory, "add", "--all");
  git(directory, "commit", "--quiet", "--message", Object.keys(files).join());
  return git(directory, "rev-parse", "HEAD");
}

/** A repository of the user with a commit on main. */
export function repository(root: string, ...options: string[]): string {
  const path = join(root, "app");
  mkdirSync(path);
  git(path, "init", "--quiet", "--initial-branch=main", ...options);
  commit(path, { "a.txt": "one\n", "b/c.txt": "two\n" });
  return path;
}

export async function copyOf(
  { root }: Context,
  project: string,
  change: Partial<CloneRequest> = {},
) {
  const target = join(root, `copy-${readdirSync(root).length}`);
  const result = await clone({
    do: "clone",
    source: {
      common: join(project, ".git"),
      own: join(project, ".git"),
      tree: project,
    },
    tree: project,
    target,
    branch: "claudy/one",
    changes: false,
    ignored: [],
    live: false,
    ...change,
  }, hostWithoutFreeze(() => {}));
  return { target, result };
}

export type Copy = Awaited<ReturnType<typeof copyOf>>;

export function scratchIn(root: string): string {
  return mkdtempSync(join(root, "scratch-"));
}

export async function packed(
  { root }: Context,
  { target, result }: Copy,
  change: Partial<PackRequest> = {},
) {
  const scratch = scratchIn(root);
  const found = await pack({
    do: "pack",
    tree: target,
    format: result.format,
    known: result.known,
    changes: false,
    fetchedTree: null,
    scratch,
    write: true,
    base: result.head,
    ...change,
  });
  return { ...found, pack: join(scratch, "pack") };
}

export async function fetch(
  context: Context,
  copy: Copy,
  common: string,
  change: Partial<PackRequest> = {},
) {
  const { pack, branches, ...found } = await packed(context, copy, change);
  const received = await receive({
    do: "receive",
    common,
    pack,
    format: copy.result.format,
    branches,
    prefix: "refs/remotes/claudy/one/",
    isCopy: false,
    base: copy.result.head,
    ...("maxBytes" in change ? { maxBytes: change.maxBytes } : {}),
  });
  git(common, "fsck", "--strict", "--no-dangling");
  assert.equal(
    readdirSync(join(common, "objects")).filter((name) => /^tmp/.test(name)),
    [],
  );
  return { ...found, branches, ...received };
}

export const failureOf = (promise: Promise<unknown>): Promise<Error> =>
  promise.then(() => assert.unreachable() as never, (error) => error);
