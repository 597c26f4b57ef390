// Guards a project with the files of the instance: what to mount in its worker, and what
// to compare the project with when the worker ends.

import { createHash } from "node:crypto";
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Instance } from "../instance/instance.ts";
import type { HostPath } from "../std/hostpath.ts";
import { readJson } from "../std/json.ts";
import { type Staged, stageFile } from "../std/owned.ts";
import {
  type Guard,
  guardOf,
  type GuardRequest,
  startLimits,
} from "./guard.ts";
import {
  type Planted,
  plantedSince,
  type Snapshot,
  snapshotSchema,
  takeSnapshot,
} from "./planted.ts";
import { findRepositories } from "./repositories.ts";

export interface GuardedProject extends Guard {
  snapshot: Snapshot;
}

type Home = Pick<Instance, "home" | "hostHome" | "host" | "owner">;

export function guardProject(
  instance: Home,
  { project, repository, mounts, unguarded }: {
    project: HostPath;
    repository: string | undefined;
    mounts: GuardRequest["mounts"];
    unguarded: boolean;
  },
): GuardedProject {
  const view = instance.host;
  const found = findRepositories(view.mount + project.path, startLimits);
  const guard = unguarded
    ? { mounts: [], missing: [], notices: [unguardedNotice] }
    : guardOf({
      project,
      repository,
      repositories: found.directories,
      mounts,
      view,
      keep: (text) => keep(instance, text),
    });
  const snapshot = takeSnapshot(
    project.path,
    repository,
    view,
    found,
    !unguarded,
  );
  return { ...guard, snapshot };
}

const unguardedNotice =
  "Unguarded: the worker can change .git/hooks, .git/config and other files that run " +
  "programs on your host";

/** Stores a text under a name made from it; it may be in use by other workers. */
function keep({ home, hostHome, owner }: Home, text: string): HostPath {
  const name = createHash("sha256").update(text).digest("hex").slice(0, 32);
  const path = join(home.guard, name);
  if (!existsSync(path)) {
    stageFile(path, text, owner, { mode: 0o644, sync: false }).commit();
  }
  // The gate does not compare it: no worker can replace it.
  return {
    path: join(hostHome.guard, name),
    kind: "file",
    inode: "",
    ...owner,
  };
}

/** `name` is that of the session, or of a worker without one. */
export function stageSnapshot(
  { home, owner }: Pick<Instance, "home" | "owner">,
  name: string,
  snapshot: Snapshot,
): Staged {
  const text = JSON.stringify(snapshot);
  return stageFile(home.snapshot(name), text, owner, { sync: false });
}

/** What has been added since then that runs on the host; undefined if unknown. */
export function plantedIn(
  { home, host }: Pick<Instance, "home" | "host">,
  name: string,
): Planted | undefined {
  const snapshot = readJson(home.snapshot(name), snapshotSchema, maxBytes);
  return snapshot && plantedSince(snapshot, host);
}

const maxBytes = 4 * 1024 * 1024;

export function forgetSnapshot(
  { home }: Pick<Instance, "home">,
  name: string,
): void {
  rmSync(home.snapshot(name), { force: true });
}
