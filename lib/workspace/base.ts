// What a copy was made from, and how both sides are mounted in helper containers.

import * as v from "valibot";
import type { Instance } from "../instance/instance.ts";
import { Failure } from "../std/errors.ts";
import type { HostPath } from "../std/hostpath.ts";
import { readJson } from "../std/json.ts";
import { writeAtomic } from "../std/owned.ts";
import { inside, type Mounted } from "./container.ts";
import type { Repository } from "./repository.ts";

/** What a copy was made from, and what the user's repository has of it. */
const baseSchema = v.object({
  version: v.literal(1),
  format: v.picklist(["sha1", "sha256"]),
  head: v.nullable(v.string()),
  /** The repository outside of the project that it was made from, if any. */
  outside: v.nullable(v.string()),
  /** Commits that the user's repository and the copy have had. */
  known: v.array(v.string()),
  /** The tree of the changes without a commit that were fetched last. */
  fetchedTree: v.nullable(v.string()),
});

export type Base = v.InferOutput<typeof baseSchema>;

const maxBaseBytes = 16 * 1024 ** 2;

export function readBase(
  { home }: Pick<Instance, "home">,
  session: string,
): Base {
  const path = home.workspaceBase(session);
  const base = readJson(path, baseSchema, maxBaseBytes);
  if (base) return base;
  throw new Failure("failed", `Cannot read ${path}`, {
    hint: "The copy itself is beside it, in tree.",
  });
}

export function writeBase(
  { home, owner }: Pick<Instance, "home" | "owner">,
  session: string,
  base: Base,
): void {
  writeAtomic(home.workspaceBase(session), JSON.stringify(base), owner);
}

export function requireOwner(
  { owner }: Instance,
  { path, uid }: HostPath,
  subject: string,
): void {
  if (uid === owner.uid) return;
  throw new Failure(
    "unsafe",
    `${subject}: it belongs to another user than HAL9000_HOME`,
    { hint: `See whose it is: ls -ld ${path}` },
  );
}

export const copyMount = (
  { path, inode }: HostPath,
  readOnly: boolean,
): Mounted => ({
  source: path,
  target: inside.copy,
  readOnly,
  inode,
});

export const commonMount = (
  { common }: Repository,
  readOnly: boolean,
): Mounted => ({
  source: common.path,
  target: inside.common,
  readOnly,
  inode: common.inode,
});

export function sourceMounts(repository: Repository): Mounted[] {
  const { own, common, tree } = repository;
  return [
    commonMount(repository, true),
    ...(own.path === common.path ? [] : [{
      source: own.path,
      target: inside.worktree,
      readOnly: true,
      inode: own.inode,
    }]),
    ...(tree
      ? [{
        source: tree.path,
        target: inside.tree,
        readOnly: true,
        inode: tree.inode,
      }]
      : []),
  ];
}

/** The places of these mounts. */
export function sourceIn({ own, common, tree }: Repository) {
  return {
    common: inside.common,
    own: own.path === common.path ? inside.common : inside.worktree,
    tree: tree ? inside.tree : null,
  };
}
