// A git submodule as a project: its git directory lies in that of the repository
// around it, and names the project by a relative path.

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
  /** Of its other worktrees, where there are any. */
  worktrees: HostPath | undefined;
  /** Where the project has its git directory, as the worker resolves it. */
  target: string;
  /** Where that has its project, as the worker resolves it. */
  link: string;
}

/**
 * The submodule whose .git file says `text`. As with a worktree, both sides must
 * name each other: the project lies in the repository that its git directory
 * belongs to. Throws a GitRefused.
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
    refuse(`${own.path} is not that of a submodule in its repository`);
  }
  if (
    worktree === "" ||
    pathOf(resolve(own.path, worktree), view) !== project.path
  ) {
    refuse(`${own.path}/config names another directory`);
  }
  checkOwner(project, own);
  checkGiven(project, own, refusal);
  const target = resolve(insideWorker.workspace, text);
  const link = resolve(target, worktree);
  if (takenNames.includes(link)) refuse(`a worker has a ${link} of its own`);
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

/** Directories of images, besides those where nothing is mounted at all. */
const takenNames = ["boot", "config", "data", "home", "lib32", "libx32"]
  .concat(["media", "mnt", "opt", "root", "run", "srv", "tmp", "var"])
  .map((name) => `/${name}`);

/** core.worktree of a git-config(1) file, written as git itself writes it. */
function worktreeIn(config: string): string {
  const core = /^\[core\]\n((?:[ \t].*\n|[#;].*\n)*)/m.exec(config)?.[1] ?? "";
  return /^\s*worktree = ([^"\\#;]+)$/m.exec(core)?.[1]?.trim() ?? "";
}

/** What makes git work in it, with a link at `link` that leads to the project. */
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
