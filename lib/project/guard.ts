// Protects what the user's own git and tools run on the host: in the worker, git's hooks
// and configuration are read-only mounts over themselves. See ADR 33.

import { lstatSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { insideWorker } from "../instance/paths.ts";
import {
  holding,
  type HostPath,
  type HostView,
  isWithin,
  lookAt,
} from "../std/hostpath.ts";
import { createDirectory, createFile } from "../std/owned.ts";
import type { WorkerMount } from "./mount.ts";

/** A mount over a part of another mount. */
export interface GuardMount {
  source: string;
  target: string;
  readOnly: boolean;
  uid: number;
  gid: number;
  /** The mount that it is a part of, and where. */
  within: { target: string; path: string };
}

/** A path of the host that is mounted over itself. */
interface Guarded {
  path: string;
  readOnly: boolean;
}

export interface Guard {
  mounts: GuardMount[];
  /** What cannot be protected because it is missing and cannot be created. */
  missing: string[];
  /** What else is not protected: one line each, for the user. */
  notices: string[];
}

/**
 * What is mounted over a worker's writable mounts. Creates missing hooks directories, except
 * in the parent, where the host's directories are read-only.
 */
export function guardOf(
  { project, repository, mounts, view }: {
    project: HostPath;
    /** The git directory outside of the project, if any. */
    repository: string | undefined;
    /** The other mounts of the worker. */
    mounts: Pick<WorkerMount, "source" | "target" | "readOnly">[];
    view: HostView;
  },
): Guard {
  const workspace = {
    source: project.path,
    target: insideWorker.workspace,
    readOnly: false,
  };
  const guarded = new Map<string, GuardMount>();
  const missing: string[] = [];
  const links: string[] = [];
  for (
    const { path, readOnly } of [join(project.path, ".git"), repository ?? ""]
      .flatMap((path) => repositoryParts(path, view))
  ) {
    if (!exists(path, view)) create(path, project, view);
    const place = plain(path, view);
    if (!place) (exists(path, view) ? links : missing).push(path);
    else {
      const { uid, gid } = place;
      for (const { target, from } of targetsOf(path, [workspace, ...mounts])) {
        const within = {
          target: from.target,
          path: path.slice(from.source.length),
        };
        const mount = { source: path, target, readOnly, uid, gid, within };
        guarded.set(target, mount);
      }
    }
  }
  return {
    // Parents first, as they have to be mounted.
    mounts: [...guarded.values()].sort((a, b) => a.target < b.target ? -1 : 1),
    missing,
    notices: links.map((path) =>
      `warning: ${path} is a link, so the worker can replace it by one that runs programs on your host`
    ),
  };
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
function repositoryParts(path: string, view: HostView): Guarded[] {
  const found = plain(path, view);
  if (found?.kind === "file") return [{ path, readOnly: true }];
  if (found?.kind !== "directory") return [];
  if (!plain(join(path, "HEAD"), view)) return [];
  return [
    // A mount point cannot be renamed, but a directory that contains one can.
    { path, readOnly: false },
    { path: join(path, "config"), readOnly: true },
    { path: join(path, "hooks"), readOnly: true },
  ];
}

function exists(path: string, { mount }: HostView): boolean {
  return lstatSync(mount + path, { throwIfNoEntry: false }) !== undefined;
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
