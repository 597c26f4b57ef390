// A git worktree as a project: its repository lies elsewhere on the host, and git
// in the worker needs it at the same path.

import { dirname, join, resolve } from "node:path";
import { Failure } from "./errors.ts";
import { type HostView, readSmallFile, realpathBeneath } from "./hostpath.ts";

export interface Worktree {
  /** The repository that it shares with others, on the host. */
  common: string;
  /** What of that is this worktree's own. */
  own: string;
}

/**
 * What a project is a worktree of, undefined where it is none. The project says so
 * by a file in the place of .git, see gitrepository-layout(5), which a worker may
 * have written: the repository must say the same of the project.
 */
export function worktreeOf(
  project: string,
  { mount }: HostView,
): Worktree | undefined {
  const link = join(project, ".git");
  const target = /^gitdir: (.+)$/m.exec(readSmallFile(mount + link))?.[1];
  // That of a submodule is a repository of its own, below another's modules.
  if (target === undefined || !/\/worktrees\/[^/]+$/.test(target)) {
    return undefined;
  }
  let own: string;
  try {
    own = realpathBeneath(mount, resolve(project, target));
  } catch {
    return undefined; // it is out of sight, or gone
  }
  if (readSmallFile(join(mount + own, "gitdir")).trim() !== link) {
    return undefined;
  }
  return { common: dirname(dirname(own)), own };
}

/**
 * The mounts that make git work in it, as SRC:DST[:ro]. Git prunes worktrees that
 * it cannot find: the project is therefore where the repository looks for it, and
 * what belongs to the others is read-only.
 */
export function worktreeMounts(project: string, worktree: Worktree): string[] {
  const { common, own } = worktree;
  const colon = [project, common, own].find((path) => /[:\n]/.test(path));
  if (colon !== undefined) {
    throw new Failure("usage", `Cannot mount the worktree's path ${colon}`, {
      hint: "It has a colon; move it, or work on a clone.",
    });
  }
  const worktrees = dirname(own);
  return [
    `${project}:${project}`,
    `${common}:${common}`,
    `${worktrees}:${worktrees}:ro`,
    `${own}:${own}`,
  ];
}
