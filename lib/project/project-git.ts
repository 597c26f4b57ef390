// Makes a project's git repository work in the worker: finds the parts outside of the
// project, what to mount for them, and what to tell the user.

import {
  type Dir,
  existsSync,
  lstatSync,
  opendirSync,
  realpathSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import {
  gitFileText,
  GitRefused,
  type JudgedMount,
  mountOf,
} from "./git-directory.ts";
import {
  type HostPath,
  type HostView,
  isWithin,
  lookAt,
  readSmallFile,
} from "../std/hostpath.ts";
import type { Instance } from "../instance/instance.ts";
import { isTarget } from "./mount.ts";
import { refusalIn } from "./project.ts";
import { insideWorker } from "../instance/paths.ts";
import { judgeSubmodule, submoduleMounts } from "./submodule.ts";
import { isWorktreePath, judgeWorktree, worktreeMounts } from "./worktree.ts";

export interface ProjectGit {
  /** What git in the worker needs, and what it must not change. */
  mounts: JudgedMount[];
  /** The repository outside of the project that is mounted writable, if any. */
  outside: string | undefined;
  /** Where the worker needs a link to the project. */
  link?: string;
  /** What does not work in the worker, and what to do about it: one line each. */
  notices: string[];
  /** Whether files of the repository are stored with Git LFS. */
  lfs?: boolean;
}

/** If the host has more worktrees, they are protected by a single mount. */
const maxEntries = 32;

/** `refusal` returns why no worker may have a directory. */
export function projectGit(
  project: HostPath,
  view: HostView,
  refusal: (path: string) => string | undefined,
): ProjectGit {
  const git = join(project.path, ".git");
  const seen = join(view.mount, git);
  const stat = lstatSync(seen, { throwIfNoEntry: false });
  if (!stat) return noticesOnly(insideRepository(project.path, view, refusal));
  if (stat.isDirectory()) return mainCheckout(project, view);
  if (!stat.isFile()) {
    return noticesOnly([
      `${git} is a link: git works in the worker only if the link points into the project`,
    ]);
  }
  const text = gitFileText(readSmallFile(seen));
  if (text === undefined) {
    return noticesOnly([`${git} is not a valid .git file`]);
  }
  const target = resolve(project.path, text);
  const own = realPath(target, view);
  if (own !== undefined && isWithin(own, project.path)) return noticesOnly([]);
  try {
    if (isWorktreePath(target) || isWorktreePath(own ?? target)) {
      const worktree = judgeWorktree(project, target, view, refusal);
      return {
        mounts: worktreeMounts(project, worktree),
        outside: worktree.common.path,
        notices: [],
      };
    }
    const submodule = judgeSubmodule(project, text, view, refusal);
    return {
      mounts: submoduleMounts(submodule),
      link: submodule.link,
      outside: submodule.own.path,
      notices: [],
    };
  } catch (error) {
    if (!(error instanceof GitRefused)) throw error;
    return noticesOnly([
      `The project's git directory ${target} is not mounted, so git does not work in the worker: ${error.message}. Work on a clone to use git`,
    ]);
  }
}

function noticesOnly(notices: string[]): ProjectGit {
  return { mounts: [], outside: undefined, notices };
}

/** For a project without .git: a notice if it is a subdirectory of a repository. */
function insideRepository(
  project: string,
  { mount }: HostView,
  refusal: (path: string) => string | undefined,
): string[] {
  for (let at = dirname(project); at !== "/"; at = dirname(at)) {
    if (!existsSync(join(mount, at, ".git"))) continue;
    // Do not suggest to open a refused directory, such as a home that is in git.
    if (refusal(at) !== undefined) return [];
    return [
      `The project is part of the git repository ${at}, which is not mounted: git does not work in the worker. Open ${at} to use git`,
    ];
  }
  return [];
}

/** For a project with its own repository. */
function mainCheckout(project: HostPath, view: HostView): ProjectGit {
  const git = join(project.path, ".git");
  return {
    mounts: hostWorktrees(project, view),
    outside: undefined,
    notices: alternates(join(view.mount, git, "objects"))
      .map((path) => resolve(git, "objects", path))
      .filter((path) => !isWithin(path, project.path))
      .map((path) =>
        `Objects of the repository are in ${path}, which is not mounted: git cannot find them in the worker. ` +
        "Copy them: git repack -a -d, then remove .git/objects/info/alternates"
      ),
  };
}

function alternates(objects: string): string[] {
  return readSmallFile(join(objects, "info/alternates")).split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"));
}

/**
 * Protects the host's worktrees. They do not exist in the worker, so git there would prune
 * them and later delete their objects. The repository's data about worktrees outside of
 * the project is mounted read-only. For worktrees inside, the project is also mounted at
 * the host's path, where git looks for them.
 */
function hostWorktrees(project: HostPath, view: HostView): JudgedMount[] {
  const directory = join(project.path, ".git/worktrees");
  const readOnly = (entry: HostPath) =>
    mountOf(entry, {
      target: insideWorker.workspace + entry.path.slice(project.path.length),
      readOnly: true,
    });
  const names = entries(join(view.mount, directory));
  if (names.length > maxEntries) {
    const all = plainDirectory(directory, view);
    return all ? [readOnly(all)] : [];
  }
  const found = names
    .flatMap((name) => plainDirectory(join(directory, name), view) ?? [])
    .map((entry) => ({ entry, place: registeredPlace(entry, view) }))
    .filter(({ place }) => !isWithin(place, insideWorker.workspace));
  const within = found.filter(({ place }) => isWithin(place, project.path));
  return [
    ...found.filter((one) => !within.includes(one))
      .map(({ entry }) => readOnly(entry)),
    ...(within.length > 0 ? [mountOf(project)] : []),
  ];
}

/** Whether a repository has worktrees with paths that exist only in a worker. */
export function hasWorkerWorktrees(project: string, view: HostView): boolean {
  const directory = join(project, ".git/worktrees");
  return entries(join(view.mount, directory)).some((name) =>
    isWithin(
      registeredPlace({ path: join(directory, name) }, view),
      insideWorker.workspace,
    )
  );
}

/** The path of a worktree as recorded in the repository. */
function registeredPlace(
  { path }: Pick<HostPath, "path">,
  { mount }: HostView,
): string {
  return resolve(path, readSmallFile(join(mount, path, "gitdir")).trim());
}

function plainDirectory(path: string, view: HostView): HostPath | undefined {
  const found = tryLookAt(path, view);
  return found?.path === path && found.kind === "directory" ? found : undefined;
}

/** Names in a directory, at most one more than the maximum. */
function entries(directory: string): string[] {
  let opened: Dir;
  try {
    if (lstatSync(directory).isSymbolicLink()) return [];
    opened = opendirSync(directory);
  } catch {
    return [];
  }
  const names: string[] = [];
  try {
    for (
      let entry = opened.readSync();
      entry && names.length <= maxEntries;
      entry = opened.readSync()
    ) {
      names.push(entry.name);
    }
  } finally {
    opened.closeSync();
  }
  return names;
}

function realPath(path: string, view: HostView): string | undefined {
  return tryLookAt(path, view)?.path;
}

function tryLookAt(path: string, view: HostView): HostPath | undefined {
  try {
    return lookAt(path, view);
  } catch {
    return undefined;
  }
}

/** projectGit() with the rules of the instance. */
export function gitOf(
  instance: Pick<
    Instance,
    "host" | "hostHome" | "places" | "settings" | "socket"
  >,
  project: HostPath,
  allowAny: boolean,
): ProjectGit {
  const { host } = instance;
  const git = {
    ...projectGit(project, host, refusalFor(instance, allowAny)),
    lfs: usesLfs(project, host),
  };
  const odd = [...git.mounts, {
    source: project.path,
    target: git.link ?? "/x",
  }]
    .find(({ target }) => !isTarget(target));
  return odd === undefined ? git : {
    mounts: [],
    outside: undefined,
    notices: [
      `${odd.source} cannot be mounted at ${odd.target}, which is reserved in the worker: git does not work there`,
    ],
  };
}

/** Returns why no worker may have a repository outside of its project. */
export function refusalFor(
  instance: Pick<
    Instance,
    "host" | "hostHome" | "places" | "settings" | "socket"
  >,
  allowAny: boolean,
): (path: string) => string | undefined {
  const { host, settings } = instance;
  const roots = host.roots ?? settings.HAL9000_PROJECT_ROOTS.map(rootPath);
  return (path) => {
    if (allowAny) return undefined;
    return roots.some((root) => isWithin(path, root))
      ? refusalIn(instance, path)
      : "it is outside of the project roots (HAL9000_PROJECT_ROOTS)";
  };
}

/** As far as the .gitattributes in the project's top directory shows it. */
export function usesLfs({ path }: HostPath, { mount }: HostView): boolean {
  return existsSync(join(mount, path, ".git")) &&
    /\bfilter=lfs\b/.test(readSmallFile(join(mount, path, ".gitattributes")));
}

function rootPath(root: string): string {
  try {
    return realpathSync(root);
  } catch {
    return root;
  }
}
