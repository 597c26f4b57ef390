// Protects what the user's own git and tools run on the host: in the worker, git's hooks
// and configuration are read-only mounts over themselves. See ADR 37.

import { readlinkSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { insideWorker } from "../instance/paths.ts";
import { type Directory, inDirectory } from "../std/directory.ts";
import {
  holding,
  type HostPath,
  type HostView,
  isWithin,
  lookAt,
} from "../std/hostpath.ts";
import { createDirectory, createFile } from "../std/owned.ts";
import { isThere, plainText } from "../std/plain-file.ts";
import type { WorkerMount } from "./mount.ts";
import { guardedFiles } from "./run-by-tools.ts";

/** A mount over a part of another mount. */
export interface GuardMount {
  source: string;
  target: string;
  readOnly: boolean;
  uid: number;
  gid: number;
  /** The mount that it is a part of, and where. */
  within: NonNullable<WorkerMount["within"]>;
}

/** A path of the host that is mounted over itself, or another file over it. */
interface Guarded {
  path: string;
  readOnly: boolean;
  source?: HostPath;
}

export interface Guard {
  mounts: GuardMount[];
  /** What cannot be protected because it is missing and cannot be created. */
  missing: string[];
  /** What else is not protected: one line each, for the user. */
  notices: string[];
}

export interface GuardRequest {
  project: HostPath;
  /** The git directory outside of the project, if any. */
  repository: string | undefined;
  /** The git directories in the project, relative to it. */
  repositories: string[];
  /** The other mounts of the worker. */
  mounts: Pick<WorkerMount, "source" | "target" | "readOnly">[];
  view: HostView;
  /** Stores a text in HAL9000_HOME, and returns its file on the host. */
  keep: (text: string) => HostPath;
}

const maxBytes = 1024 * 1024;

/** Each has two mounts. */
const maxRepositories = 32;

/** When a worker starts, which does not wait for long. */
export const startLimits = {
  maxDirectories: 200,
  maxEntries: 5000,
  maxDepth: 4,
};

/**
 * What is mounted over a worker's writable mounts. Creates missing hooks directories, except
 * in the parent, where the host's directories are read-only.
 */
export function guardOf(request: GuardRequest): Guard {
  const { project, view } = request;
  const all = [{
    source: project.path,
    target: insideWorker.workspace,
    readOnly: false,
  }, ...request.mounts];
  const guarded = new Map<string, GuardMount>();
  const missing: string[] = [];
  const notices: string[] = [];
  for (const { path, readOnly, source } of partsOf(request, notices)) {
    if (!exists(path, view)) create(path, project, view);
    const place = source ?? plain(path, view);
    if (!exists(path, view)) missing.push(path);
    else if (!place) {
      notices.push(
        `warning: ${path} is a link, so the worker can replace it by programs that your git runs`,
      );
    } else {
      for (const { target, from } of targetsOf(path, all)) {
        const { uid, gid } = place;
        const rest = source ? undefined : path.slice(from.source.length);
        const within = { target: from.target, path: rest };
        const mount = {
          source: place.path,
          target,
          readOnly,
          uid,
          gid,
          within,
        };
        guarded.set(target, mount);
      }
    }
  }
  return { mounts: [...guarded.values()], missing, notices };
}

function partsOf(request: GuardRequest, notices: string[]): Guarded[] {
  const { project, repository, view } = request;
  const own = join(project.path, ".git");
  const others = request.repositories.map((path) => join(project.path, path))
    .filter((path) => path !== own);
  if (others.length > maxRepositories) {
    notices.push(
      `warning: ${project.path} contains ${others.length} git repositories; hooks and configuration of only ${maxRepositories} are protected`,
    );
  }
  const directories = [
    own,
    ...(repository ? [repository] : []),
    ...others.slice(0, maxRepositories),
  ];
  const tools = guardedFiles.map(({ path }) => join(project.path, path));
  return [
    ...directories.flatMap((path) => repositoryParts(path, request)),
    ...ownWorktreeParts(request),
    ...tools.filter((path) => exists(path, view) && plain(path, view))
      .map((path) => ({ path, readOnly: true })),
  ];
}

/** Each place in the worker where a path of the host can be written. */
function targetsOf(
  path: string,
  mounts: Pick<WorkerMount, "source" | "target" | "readOnly">[],
) {
  return mounts
    .filter(({ source, readOnly }) =>
      !readOnly && path !== source && isWithin(path, source)
    )
    .map((from) => ({
      from,
      target: from.target + path.slice(from.source.length),
    }))
    .filter(({ target, from }) =>
      !mounts.some((other) =>
        other.target !== from.target && isWithin(target, other.target) &&
        isWithin(other.target, from.target)
      )
    );
}

/** The parts of a git directory that decide which programs git runs. */
function repositoryParts(
  path: string,
  { project, view, keep }: GuardRequest,
): Guarded[] {
  const readOnly = true;
  const found = plain(path, view);
  if (found?.kind === "file") return [{ path, readOnly }];
  if (found?.kind !== "directory") return [];
  if (!plain(join(path, "HEAD"), view)) return [];
  const config = join(path, "config");
  const text = configOf(path, view);
  const isSubmodule = isWithin(path, join(project.path, ".git/modules"));
  return [
    // A mount point cannot be renamed, but a directory that contains one can. So can those
    // of nested repositories: a worker can also make new ones.
    ...(path === join(project.path, ".git") ? [{ path, readOnly: false }] : []),
    isSubmodule && worktreeLine.test(text)
      ? { path: config, readOnly, source: keep(text.replace(worktreeLine, "")) }
      : { path: config, readOnly },
    { path: join(path, "hooks"), readOnly },
    ...(worktreeConfig.test(text)
      ? [{ path: join(path, "config.worktree"), readOnly }]
      : []),
    ...[
      join(path, "info/attributes"),
      ...programsIn(path, text, project),
      ...linkedHooks(path, project, view),
    ].filter((path) => exists(path, view) && plain(path, view))
      .map((path) => ({ path, readOnly })),
  ];
}

/** Of a project that is a worktree: its directory in the repository. */
function ownWorktreeParts(
  { repository, mounts, view }: GuardRequest,
): Guarded[] {
  const own = mounts.find(({ source, readOnly }) =>
    !readOnly && repository && dirname(source) === join(repository, "worktrees")
  );
  if (!repository || !own) return [];
  const names = ["commondir"];
  if (worktreeConfig.test(configOf(repository, view))) {
    names.push("config.worktree");
  }
  return names
    .map((name) => ({ path: join(own.source, name), readOnly: true }));
}

/** With this extension, git also reads config.worktree. */
const worktreeConfig = /worktreeConfig/i;

function configOf(directory: string, { mount }: HostView): string {
  return plainText(join(mount, directory, "config"), { maxBytes }) ?? "";
}

/**
 * `git submodule update` writes this line again if it is there, and works without it:
 * ensure_core_worktree() in git's submodule--helper.c.
 */
const worktreeLine = /^\s*worktree = .*\n/m;

/** Files and directories of the project that a configuration includes or runs hooks of. */
function programsIn(
  directory: string,
  config: string,
  project: HostPath,
): string[] {
  const values = (key: string) =>
    [...config.matchAll(
      new RegExp(`^\\s*${key}\\s*=\\s*"?([^"\\n;#]+)`, "gim"),
    )]
      .map(([, value = ""]) => value.trim());
  const top = directory.endsWith("/.git") ? dirname(directory) : project.path;
  return [
    ...values("hooksPath").map((path) => resolve(top, path)),
    ...values("path").map((path) => resolve(directory, path)),
  ].filter((path) => path !== project.path && isWithin(path, project.path));
}

/** Files of the project that hooks are links to. */
function linkedHooks(
  directory: string,
  project: HostPath,
  { mount }: HostView,
): string[] {
  const hooks = join(directory, "hooks");
  const found: string[] = [];
  inDirectory(mount + hooks, (opened) => {
    let count = 0;
    for (const { name, kind } of opened.entries()) {
      if (++count > maxHooks) break;
      if (kind !== "other") continue;
      const target = linkIn(opened, name);
      if (target) found.push(resolve(hooks, target));
    }
  });
  return found.filter((path) => isWithin(path, project.path));
}

const maxHooks = 200;

function linkIn(directory: Directory, name: string): string | undefined {
  try {
    return readlinkSync(directory.at(name));
  } catch {
    return undefined;
  }
}

function exists(path: string, { mount }: HostView): boolean {
  return isThere(mount + path);
}

/** Only what exists can be mounted over, and the worker could create it. */
function create(path: string, owner: HostPath, view: HostView): void {
  const [directory, name] = [dirname(path), basename(path)];
  try {
    holding(directory, view, ({ at, found }) => {
      if (found.path === directory) makers[name]?.(`${at}/${name}`, owner);
    });
  } catch {
    // Another process was faster, or it is read-only or belongs to another user.
  }
}

const makers: Record<string, typeof createFile> = {
  config: createFile,
  "config.worktree": createFile,
  hooks: createDirectory,
};

/** A file or directory that is reached without links. */
function plain(path: string, view: HostView): HostPath | undefined {
  try {
    const found = lookAt(path, view);
    return found?.path === path ? found : undefined;
  } catch {
    return undefined;
  }
}
