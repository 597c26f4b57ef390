// A git worktree as a project. Its repository is elsewhere on the host, and git in the
// worker needs it at the same path. See gitrepository-layout(5).

import { basename, dirname, resolve } from "node:path";
import {
  checkGiven,
  checkOwner,
  checkRepository,
  held,
  isHead,
  type JudgedMount,
  lineOf,
  mountOf,
  pathOf,
  refuse,
} from "./git-directory.ts";
import type { Held, HostPath, HostView } from "../std/hostpath.ts";

export interface Worktree {
  /** The git directory that it shares with other worktrees. */
  common: HostPath;
  /** The directory of all worktrees in the common directory. */
  worktrees: HostPath;
  /** The directory of this worktree in it. */
  own: HostPath;
}

/** Whether the path has the form of a worktree's git directory. */
export function isWorktreePath(gitDirectory: string): boolean {
  return basename(dirname(gitDirectory)) === "worktrees";
}

/**
 * The worktree whose git directory is `target`. A worker may have written everything that
 * is read here. So the git directory and the project must refer to each other, as git also
 * requires, and the repository must be valid, have the same owner, not contain the project,
 * and not be refused by `refusal`. Throws GitRefused.
 */
export function judgeWorktree(
  project: HostPath,
  target: string,
  view: HostView,
  refusal: (path: string) => string | undefined,
): Worktree {
  const own = held(target, view, (own) => {
    checkOwnDirectory(project, own, view);
    return own.found;
  });
  const worktrees = held(dirname(own.path), view, ({ found }) => found);
  const common = held(dirname(worktrees.path), view, ({ found, at }) => {
    checkRepository(found, at);
    return found;
  });
  if (
    worktrees.path !== dirname(own.path) ||
    common.path !== dirname(worktrees.path)
  ) {
    refuse(`${own.path} is being moved or replaced`);
  }
  for (const directory of [own, worktrees, common]) {
    checkOwner(project, directory);
  }
  checkGiven(project, common, refusal);
  return { common, worktrees, own };
}

function checkOwnDirectory(
  project: HostPath,
  { found, at }: Held,
  view: HostView,
): void {
  const { path } = found;
  if (!isWorktreePath(path)) {
    refuse(`${path} is not in a "worktrees" directory`);
  }
  const common = lineOf(`${at}/commondir`);
  if (
    common === "" ||
    pathOf(resolve(path, common), view) !== dirname(dirname(path))
  ) {
    refuse(`${path}/commondir does not refer to its repository`);
  }
  const back = resolve(path, lineOf(`${at}/gitdir`));
  if (
    basename(back) !== ".git" || pathOf(dirname(back), view) !== project.path
  ) {
    refuse(`${path} is registered for another directory`);
  }
  if (!isHead(`${at}/HEAD`)) refuse(`${path}/HEAD is not valid`);
}

/**
 * The mounts for git to work. Git prunes worktrees that it cannot find, so the project is
 * also mounted at the path that the repository has recorded, and the data of other
 * worktrees is mounted read-only.
 */
export function worktreeMounts(
  project: HostPath,
  { common, worktrees, own }: Worktree,
): JudgedMount[] {
  return [
    mountOf(project),
    mountOf(common),
    mountOf(worktrees, { readOnly: true }),
    mountOf(own),
  ];
}
