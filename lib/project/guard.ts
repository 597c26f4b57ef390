// Protects what the user's own git and tools run on the host: in the worker, git's hooks
// and configuration are read-only mounts over themselves. See ADR 33.

import { lstatSync } from "node:fs";
import { join } from "node:path";
import { insideWorker } from "../instance/paths.ts";
import {
  type Held,
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

/** What is mounted over a worker's writable mounts. Creates missing hooks directories. */
export function guardOf(
  { project, repository, mounts, view }: {
    project: HostPath;
    /** The git directory outside of the project, if any. */
    repository: string | undefined;
    /** The other mounts of the worker. */
    mounts: Pick<WorkerMount, "source" | "target" | "readOnly">[];
    view: HostView;
  },
): GuardMount[] {
  const workspace = {
    source: project.path,
    target: insideWorker.workspace,
    readOnly: false,
  };
  const all = [workspace, ...mounts];
  const guarded = [join(project.path, ".git"), repository ?? ""]
    .flatMap((path) => repositoryParts(path, project, view));
  const found = new Map<string, GuardMount>();
  for (const { path, readOnly } of guarded) {
    const { uid, gid } = plain(path, view) ?? project;
    for (const { target, from } of targetsOf(path, all)) {
      const within = {
        target: from.target,
        path: path.slice(from.source.length),
      };
      found.set(target, { source: path, target, readOnly, uid, gid, within });
    }
  }
  // Parents first, as they have to be mounted.
  return [...found.values()].sort((a, b) => a.target < b.target ? -1 : 1);
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
  owner: HostPath,
  view: HostView,
): Guarded[] {
  const found = plain(path, view);
  if (found?.kind === "file") return [{ path, readOnly: true }];
  if (found?.kind !== "directory") return [];
  if (!plain(join(path, "HEAD"), view)) return [];
  createMissing(path, owner, view);
  return [
    // A mount point cannot be renamed, but a directory that contains one can.
    { path, readOnly: false },
    ...["config", "hooks"].map((name) => join(path, name))
      .filter((path) => plain(path, view))
      .map((path) => ({ path, readOnly: true })),
  ];
}

/** A missing file cannot be mounted over, and the worker could create it. */
function createMissing(path: string, owner: HostPath, view: HostView): void {
  // In the parent, the host's directories are read-only.
  if (view.mount !== "") return;
  holding(path, view, ({ at }: Held) => {
    if (!lstatSync(`${at}/hooks`, { throwIfNoEntry: false })) {
      createDirectory(`${at}/hooks`, owner);
    }
    if (!lstatSync(`${at}/config`, { throwIfNoEntry: false })) {
      createFile(`${at}/config`, owner);
    }
  });
}

/** A file or directory that is reached without links. */
function plain(path: string, view: HostView): HostPath | undefined {
  try {
    const found = lookAt(path, view);
    return found?.path === path ? found : undefined;
  } catch {
    return undefined;
  }
}
