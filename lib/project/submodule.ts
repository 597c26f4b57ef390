// A git submodule as a project. Its git directory is inside that of its superproject, and
// refers to the project by a relative path.

import { resolve } from "node:path";
import { existsSync } from "node:fs";
import {
  checkGiven,
  checkOwner,
  checkRepository,
  held,
  type JudgedMount,
  mountOf,
  pathOf,
  refuse,
} from "./git-directory.ts";
import {
  type HostPath,
  type HostView,
  isWithin,
  readSmallFile,
} from "../std/hostpath.ts";
import { insideWorker } from "../instance/paths.ts";

export interface Submodule {
  own: HostPath;
  /** The directory of its other worktrees, if there are any. */
  worktrees: HostPath | undefined;
  /** The path of the git directory, as resolved in the worker from the project. */
  target: string;
  /** The path of the project, as resolved in the worker from the git directory. */
  link: string;
}

/**
 * The submodule whose .git file has the target `text`. As with a worktree, the project and
 * the git directory must refer to each other, and the project must be inside the
 * superproject. Throws GitRefused.
 */
export function judgeSubmodule(
  project: HostPath,
  text: string,
  view: HostView,
  refusal: (path: string) => string | undefined,
): Submodule {
  const directory = resolve(project.path, text);
  let worktree = "";
  const own = held(directory, view, ({ found, at }) => {
    checkRepository(found, at);
    worktree = worktreeIn(readSmallFile(`${at}/config`));
    return found;
  });
  const around = /^(.+)\/\.git\/modules\/.+$/.exec(own.path)?.[1];
  if (around === undefined || !isWithin(project.path, around)) {
    refuse(`${own.path} is not the git directory of a submodule`);
  }
  if (
    worktree === "" ||
    pathOf(resolve(own.path, worktree), view) !== project.path
  ) {
    refuse(`${own.path}/config refers to another directory`);
  }
  checkOwner(project, own);
  checkGiven(project, own, refusal);
  const target = resolve(insideWorker.workspace, text);
  const link = resolve(target, worktree);
  if (takenNames.includes(link)) refuse(`${link} is reserved in the worker`);
  const others = `${own.path}/worktrees`;
  return {
    own,
    worktrees: existsSync(view.mount + others)
      ? held(others, view, ({ found }) => found)
      : undefined,
    target,
    link,
  };
}

/** Directories of images, in addition to those where mounts are always refused. */
const takenNames = ["boot", "config", "data", "home", "lib32", "libx32"]
  .concat(["media", "mnt", "opt", "root", "run", "srv", "tmp", "var"])
  .map((name) => `/${name}`);

/** core.worktree in a git-config(1) file, in the format that git writes. */
function worktreeIn(config: string): string {
  const core = /^\[core\]\n((?:[ \t].*\n|[#;].*\n)*)/m.exec(config)?.[1] ?? "";
  return /^\s*worktree = ([^"\\#;]+)$/m.exec(core)?.[1]?.trim() ?? "";
}

/** The mounts for git to work, in addition to a link at `link` to the project. */
export function submoduleMounts(
  { own, worktrees, target }: Submodule,
): JudgedMount[] {
  return [
    mountOf(own, { target }),
    ...(worktrees
      ? [mountOf(worktrees, { target: `${target}/worktrees`, readOnly: true })]
      : []),
  ];
}
