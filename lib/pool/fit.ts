// Whether and how a warm worker can serve a request.

import { randomBytes } from "node:crypto";
import { existsSync, lstatSync } from "node:fs";
import { resolve } from "node:path";
import { checkLimits, fitLimits } from "../docker/engine-info.ts";
import type { Instance } from "../instance/instance.ts";
import { insideWorker } from "../instance/paths.ts";
import type { WorkerRecord } from "../instance/record.ts";
import type { JudgedMount } from "../project/git-directory.ts";
import type { GuardMount } from "../project/guard.ts";
import { type GuardedProject, guardProject } from "../project/guarding.ts";
import type { Snapshot } from "../project/planted.ts";
import { gitOf, type ProjectGit } from "../project/project-git.ts";
import { ownedProject, type Project, refusalIn } from "../project/project.ts";
import { messageOf } from "../std/errors.ts";
import { type HostPath, inodeOf, isWithin, lookAt } from "../std/hostpath.ts";
import type { Limits } from "../worker/limits.ts";
import { checkWorkerName } from "../worker/name.ts";
import { isolatedMode } from "../worker/network.ts";
import { lfsNotice } from "../worker/request.ts";
import type { ClaimRequest } from "./protocol.ts";
import type { WarmRecipe } from "./warm.ts";

/** Why a warm worker cannot serve a request, in a few words. */
export class Unfit extends Error {}

export interface Fitting {
  /** What is mounted as the workspace. */
  project: Project;
  mounts: (JudgedMount | GuardMount)[];
  /** What programs of the host run in the project; undefined for a copy of it. */
  snapshot: Snapshot | undefined;
  name: string;
  limits: Limits;
  /** What the user of the worker has to know. */
  notices: string[];
}

/**
 * Checks whether and how a warm worker of `recipe` can serve a request; throws Unfit if
 * none can.
 */
export async function fit(
  instance: Instance,
  request: ClaimRequest,
  recipe: Pick<
    WarmRecipe,
    "limits" | "lacksLfs" | "network" | "relay" | "caches"
  >,
): Promise<Fitting> {
  if (request.instance !== instance.prefix) throw new Unfit("another instance");
  const isIsolated = recipe.network === isolatedMode;
  if ((request.network === "isolated") !== isIsolated) {
    throw new Unfit("another network");
  }
  const { relay = "off" } = request;
  if (relay !== "any" && (relay === "on") !== recipe.relay) {
    throw new Unfit("another relay setting");
  }
  // A running worker gets no variables, so its caches cannot change.
  if ((request.caches ?? []).join() !== recipe.caches.join()) {
    throw new Unfit("other package caches");
  }
  const project = projectOf(instance, request);
  const { owner } = instance;
  if (project.uid !== owner.uid || project.gid !== owner.gid) {
    throw new Unfit("the project has another owner");
  }
  const name = request.name === undefined
    ? instance.names.worker(randomBytes(4).toString("hex"))
    : checkWorkerName(request.name, instance.names);
  if (existsSync(instance.home.record(name))) throw new Unfit("name is taken");
  const isCopy = request.copyOf !== undefined;
  const git: ProjectGit = isCopy
    // No program of the host reads it, so the worker may change all of it.
    ? { mounts: [], outside: undefined, notices: [] }
    : gitOf(instance, project, request.allowAnyPath);
  if (
    git.mounts.some(({ target }) => !isWithin(target, insideWorker.workspace))
  ) {
    // Mounts outside of the workspace cannot be attached to a running worker.
    throw new Unfit("its git needs mounts elsewhere");
  }
  const guard = isCopy
    ? { mounts: [], missing: [], notices: [], snapshot: undefined }
    : guardIn(instance, project, git, request.unguarded);
  // The cold spawn creates it: here, the project is read-only.
  if (guard.missing.length > 0) throw new Unfit("a part of .git is missing");
  const { memoryBytes, cpus, pids = recipe.limits.pids } = request.limits;
  const notices: string[] = [];
  const log = (line: string) => void notices.push(line);
  const required = request.requireLimits || instance.settings.REQUIRE_LIMITS;
  await checkLimits(instance.docker, { required, log }).catch((error) => {
    throw new Unfit(messageOf(error));
  });
  const wanted = { memoryBytes, cpus, pids };
  const limits = await fitLimits(instance.docker, wanted, log);
  return {
    project: ownedProject(project),
    mounts: [...git.mounts, ...guard.mounts],
    snapshot: guard.snapshot,
    name,
    limits,
    notices: [
      ...notices,
      ...git.notices,
      ...guard.notices,
      ...lfsNotice(git, recipe.lacksLfs),
    ],
  };
}

function guardIn(
  instance: Instance,
  project: HostPath,
  { outside: repository, mounts }: ProjectGit,
  unguarded = false,
): GuardedProject {
  return guardProject(instance, { project, repository, mounts, unguarded });
}

function projectOf(instance: Instance, request: ClaimRequest): HostPath {
  if (request.copyOf !== undefined) return copyIn(instance, request);
  let found;
  try {
    found = lookAt(resolve("/", request.directory), instance.host);
  } catch {
    // The cold spawn that follows reports the error.
    throw new Unfit("the project cannot be looked at");
  }
  if (!found) throw new Unfit("outside of the project roots");
  const refusal = request.allowAnyPath
    ? undefined
    : refusalIn(instance, found.path);
  if (refusal !== undefined || found.kind !== "directory") {
    throw new Unfit("no project for a worker");
  }
  return found;
}

/** The copy of a session, and nothing else in HAL9000_HOME. */
function copyIn(
  { hostHome, home }: Pick<Instance, "hostHome" | "home">,
  { directory, session }: ClaimRequest,
): HostPath {
  if (
    session === undefined || directory !== hostHome.workspaceTree(session)
  ) throw new Unfit("no project for a worker");
  const path = home.workspaceTree(session);
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (!stat?.isDirectory()) throw new Unfit("the copy is missing");
  const { uid, gid } = stat;
  return { path: directory, kind: "directory", uid, gid, inode: inodeOf(path) };
}

/** What is mounted as the workspace of a claimed worker. */
export function workspaceOf({ project, workspace }: WorkerRecord): Project {
  return workspace === undefined ? project : { ...project, path: workspace };
}

/** Mounts within a claimed project that its git currently needs, and those that protect it. */
export function gitMountsWithin(
  instance: Instance,
  { project: { path }, unguarded, workspace }: WorkerRecord,
): (JudgedMount | GuardMount)[] {
  if (workspace !== undefined) return [];
  const found = lookAt(path, instance.host);
  if (found?.path !== path) return [];
  const git = gitOf(instance, found, true);
  return [...git.mounts, ...guardIn(instance, found, git, unguarded).mounts]
    .filter(({ target }) => isWithin(target, insideWorker.workspace));
}
