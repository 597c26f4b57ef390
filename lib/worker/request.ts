// What a spawn is asked for, and the check of it. Nothing of the worker exists yet.

import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import {
  type Docker,
  holderOf,
  inspectImage,
  namespaceStart,
} from "../docker/docker.ts";
import { workerSeccomp } from "../image/seccomp.ts";
import { workerImage } from "../image/recipes.ts";
import { workersNetwork } from "../instance/container.ts";
import { findParent, type Instance } from "../instance/instance.ts";
import { label } from "../instance/labels.ts";
import { ensureHome, ensureVolume, movedParts } from "../instance/volumes.ts";
import { guardProject } from "../project/guarding.ts";
import type { Snapshot } from "../project/planted.ts";
import {
  refuseSameTargets,
  resolveMount,
  type WorkerMount,
} from "../project/mount.ts";
import { type Project, resolveProject } from "../project/project.ts";
import { gitOf, type ProjectGit, usesLfs } from "../project/project-git.ts";
import {
  consentTo,
  type RepositoryConsent,
} from "../project/repository-consent.ts";
import { type RelayUse, relayUseOf } from "../relay/names.ts";
import { requireRelay } from "../home/relayed.ts";
import { Failure } from "../std/errors.ts";
import type { HostPath } from "../std/hostpath.ts";
import type { Log } from "../std/log.ts";
import { type PackageCache, readyCaches } from "./caches.ts";
import { type Limits, workerLimits } from "./limits.ts";
import { checkWorkerName } from "./name.ts";
import { ensureNetFiles } from "./net-files.ts";
import { isolatedMode } from "./network.ts";
import type { Secret } from "./secrets.ts";
import { checkVariable } from "./spec.ts";
import { agentMount } from "./ssh-agent.ts";

export interface SpawnRequest {
  directory: string;
  /** Base directory for relative paths. */
  cwd: string;
  /** The directory, if it is already resolved. */
  resolved?: Project & HostPath;
  /** The user's project, if the directory is a session's copy of it. */
  copyOf?: string | undefined;
  /** @default a generated name */
  name?: string | undefined;
  /** The session whose Claude home is mounted. @default a home for this worker */
  session?: string | undefined;
  /** @default by the setting: on for a session, else any */
  relay?: RelayUse | undefined;
  image?: string | undefined;
  /** Id of that image, if it is already known. */
  imageId?: string | undefined;
  /** False for a worker without limits. */
  limited?: boolean;
  /** Keep the container after it has exited. */
  keep?: boolean;
  /** Use a separate network instead of the workers' shared one. */
  standalone?: boolean;
  allowAnyPath?: boolean;
  /** Mount the data of version 0.5 from HAL9000_HOME below /data. */
  formerData?: boolean;
  /** SRC:DST[:ro] */
  mounts?: string[];
  /** Socket of an ssh-agent on the host; only the worker's user can connect to it. */
  sshAgent?: string | undefined;
  /** Consent to mount a git repository outside the project. */
  repository?: RepositoryConsent | undefined;
  /** KEY=VALUE */
  env?: string[];
  secrets?: Secret[];
  /** For a single command; if the caller does not stop the worker, the parent does. */
  once?: boolean;
  command?: string[] | undefined;
  terminal?: boolean;
}

/** A checked request, and the values that come from the instance. */
export interface ResolvedRequest {
  name: string;
  env: string[];
  network: string;
  relay: RelayUse;
  project: Project & HostPath;
  mounts: WorkerMount[];
  caches: PackageCache[];
  /** Path in the worker of a link to the project, which git needs in a submodule. */
  link: string | undefined;
  /** What programs of the host run in the project; undefined for a copy of it. */
  snapshot: Snapshot | undefined;
  image: string;
  limits: Limits | null;
  seccomp: string | undefined;
  netFiles: string | undefined;
}

/** Throws a Failure if the request cannot be fulfilled. */
export async function resolveRequest(
  instance: Instance,
  request: SpawnRequest,
  log: Log,
): Promise<ResolvedRequest> {
  const { cwd, allowAnyPath: allowAny = false } = request;
  const name = request.name === undefined
    ? instance.names.worker(randomBytes(4).toString("hex"))
    : checkWorkerName(request.name, instance.names);
  const env = (request.env ?? []).map(checkVariable);
  const image = request.image ?? workerImage(instance.settings);
  // Asked for now, and awaited below: other errors are reported first.
  const inspected = inspectImage(instance.docker, image);
  inspected.catch(() => {});
  const network = await networkFor(instance, request);
  const relay = relayUseOf(instance.settings.HAL9000_RELAY, request);
  if (relay === "on") requireRelay(instance);
  const project = request.resolved ?? await resolveProject(instance, {
    path: request.directory,
    cwd,
    as: "project",
    allowAny,
  });
  const present = await inspected;
  const { mounts, link, snapshot } = await mountsFor(instance, request, {
    project,
    image: present,
  }, log);
  ensureHome(instance);
  const [limits, seccomp, netFiles, caches] = await Promise.all([
    request.limited === false ? null : workerLimits(instance, present, log),
    workerSeccomp(instance, log),
    network === workersNetwork(instance)
      ? ensureNetFiles(instance, network)
      : undefined,
    readyCaches(instance, project, log),
    ensureVolume(instance, instance.names.volumes.plugins),
    requireNetworkRuns(instance, network),
  ]);
  return {
    name,
    env,
    network,
    relay,
    project,
    mounts,
    caches,
    link,
    snapshot,
    image,
    limits,
    seccomp,
    netFiles,
  };
}

/** The mounts in addition to those that every worker has. */
async function mountsFor(
  instance: Instance,
  request: SpawnRequest,
  { project, image }: {
    project: Project & HostPath;
    image: Docker.ImageInspectInfo | undefined;
  },
  log: Log,
): Promise<
  Pick<ResolvedRequest, "mounts" | "link" | "snapshot">
> {
  const { cwd, allowAnyPath: allowAny = false } = request;
  const requested = await Promise.all(
    (request.mounts ?? []).map((mount) =>
      resolveMount(instance, mount, cwd, allowAny)
    ),
  );
  if (request.copyOf !== undefined) {
    // No program of the host reads it, so the worker may change all of it.
    const lfs = usesLfs(project, instance.host);
    lfsNotice({ lfs }, lacksLfs(image)).forEach(log);
    const mounts = [...requested];
    if (request.sshAgent) {
      mounts.push(await agentMount(instance, request.sshAgent));
    }
    return { mounts, link: undefined, snapshot: undefined };
  }
  const git = gitOf(instance, project, allowAny);
  const mounts: WorkerMount[] = [...requested, ...git.mounts];
  refuseSameTargets(mounts);
  const { snapshot, ...guard } = guardProject(instance, {
    project,
    repository: git.outside,
    mounts,
    unguarded: instance.settings.UNGUARDED,
  });
  mounts.push(...guard.mounts);
  guard.notices.forEach(log);
  for (const path of guard.missing) {
    log(`warning: The worker can create ${path}, which git uses on your host`);
  }
  [...git.notices, ...lfsNotice(git, lacksLfs(image))].forEach(log);
  if (git.outside !== undefined) {
    await consentTo(git.outside, project, request.repository);
    log(
      `Mounting ${git.outside}: the project is a ${
        git.link ? "submodule" : "worktree"
      } of this repository`,
    );
  }
  if (request.sshAgent) {
    mounts.push(await agentMount(instance, request.sshAgent));
  }
  if (request.formerData) mounts.push(...legacyMounts(instance));
  return { mounts, link: git.link, snapshot };
}

/** Whether an image of ours has no git-lfs; others are not known. */
export function lacksLfs(image: Docker.ImageInspectInfo | undefined): boolean {
  const labels = image?.Config?.Labels ?? {};
  return labels[label.inputs] !== undefined && labels[label.lfs] !== "true";
}

export function lfsNotice(
  { lfs }: Pick<ProjectGit, "lfs">,
  lacking: boolean,
): string[] {
  return lfs && lacking
    ? [
      "The repository uses Git LFS, which this worker lacks: git add would store " +
      "whole files. Use a profile, for instance --profile python",
    ]
    : [];
}

function legacyMounts(
  { home, hostHome }: Pick<Instance, "home" | "hostHome">,
): WorkerMount[] {
  return movedParts.filter(({ name }) => existsSync(join(home.home, name)))
    .map(({ name }) => ({
      source: join(hostHome.home, name),
      target: `/data/${name}`,
      readOnly: false,
    }));
}

/** Docker's network mode. Throws a `notFound` Failure if the parent does not run. */
async function networkFor(
  instance: Instance,
  { standalone }: SpawnRequest,
): Promise<string> {
  if (standalone) return "bridge";
  const parent = instance.self ?? await findParent(instance);
  if (parent?.State !== "running") {
    const state = parent?.State === "paused" ? "paused" : "not running";
    throw new Failure("notFound", `Cannot spawn: the parent is ${state}`, {
      hint: "Start it: claudy daemon start. Or spawn with --standalone.",
    });
  }
  return instance.settings.WORKER_NETWORK === "isolated"
    ? isolatedMode
    : workersNetwork(instance);
}

/** Checks this in advance, because the engine's error contains only a container id. */
async function requireNetworkRuns(
  { docker, names }: Pick<Instance, "docker" | "names">,
  network: string,
): Promise<void> {
  const holder = holderOf(network);
  if (holder === undefined || await namespaceStart(docker, holder)) return;
  throw new Failure("notFound", `Cannot spawn: ${names.net} is not running`, {
    hint: "Start it: claudy daemon start. Or spawn with --standalone.",
  });
}
