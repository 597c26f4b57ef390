// Finds the repository of a user's project, for a copy of it.

import { lstatSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import type { Instance } from "../instance/instance.ts";
import {
  checkRepository,
  gitFileText,
  GitRefused,
  held,
} from "../project/git-directory.ts";
import { refusalFor } from "../project/project-git.ts";
import { refusalIn } from "../project/project.ts";
import { judgeSubmodule } from "../project/submodule.ts";
import { isWorktreePath, judgeWorktree } from "../project/worktree.ts";
import { Failure } from "../std/errors.ts";
import { type HostPath, readSmallFile } from "../std/hostpath.ts";

export interface Repository {
  /** The git directory that worktrees share. */
  common: HostPath;
  /** That of the worktree; the same for others. */
  own: HostPath;
  /** Undefined for a bare one. */
  tree: HostPath | undefined;
  /** Whether it is outside of the project. */
  outside: boolean;
}

/**
 * Undefined if the project is no repository. Throws a Failure if its repository cannot be
 * used. A worker may have written what is read here, see judgeWorktree().
 */
export function repositoryOf(
  instance: Instance,
  project: HostPath,
  allowAny: boolean,
): Repository | undefined {
  const view = instance.host;
  const refusal = refusalFor(instance, allowAny);
  const path = join(project.path, ".git");
  const stat = lstatSync(view.mount + path, { throwIfNoEntry: false });
  try {
    if (!stat) return bareOrNone(instance, project);
    if (stat.isDirectory()) {
      const common = held(path, view, ({ found, at }) => {
        checkRepository(found, at);
        return found;
      });
      if (common.path !== path) throw new GitRefused(`${path} is a link`);
      return { common, own: common, tree: project, outside: false };
    }
    const text = stat.isFile()
      ? gitFileText(readSmallFile(view.mount + path))
      : undefined;
    if (text === undefined) {
      throw new GitRefused(`${path} is neither a directory nor a .git file`);
    }
    const target = resolve(project.path, text);
    if (isWorktreePath(target)) {
      const { common, own } = judgeWorktree(project, target, view, refusal);
      return { common, own, tree: project, outside: true };
    }
    const { own } = judgeSubmodule(project, text, view, refusal);
    return { common: own, own, tree: project, outside: true };
  } catch (error) {
    if (!(error instanceof GitRefused)) throw error;
    throw new Failure(
      "unsafe",
      `Cannot use the repository of ${project.path}: ${error.message}`,
      { cause: error, hint: "Work on a clone of it: git clone" },
    );
  }
}

function bareOrNone(
  instance: Instance,
  project: HostPath,
): Repository | undefined {
  const { mount } = instance.host;
  const isThere = (directory: string, name: string) =>
    lstatSync(join(mount, directory, name), { throwIfNoEntry: false }) !==
      undefined;
  if (
    ["HEAD", "objects", "refs"].every((name) => isThere(project.path, name))
  ) {
    checkRepository(project, mount + project.path);
    return { common: project, own: project, tree: undefined, outside: false };
  }
  for (let at = project.path; dirname(at) !== at; at = dirname(at)) {
    const above = dirname(at);
    if (!isThere(above, ".git")) continue;
    // Such as a home that is in git.
    if (refusalIn(instance, above) !== undefined) return undefined;
    throw new Failure(
      "usage",
      `${project.path} is a part of the repository ${above}`,
      { hint: `Make a copy of all of it: claudy --clone ${above}` },
    );
  }
  return undefined;
}
