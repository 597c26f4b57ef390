// Spawns a worker: checks the user's request, then creates the container and its record.

import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import {
  capCpus,
  type Docker,
  holderOf,
  inspectContainer,
  inspectImage,
  namespaceStart,
  removeContainer,
} from "../docker/docker.ts";
import { Failure } from "../std/errors.ts";
import type { GateCheck } from "./gate.ts";
import { type HostPath, inodeOf } from "../std/hostpath.ts";
import { workerImage } from "../image/recipes.ts";
import { findParent, type Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { movedParts } from "../instance/volumes.ts";
import { refuseSameTargets, resolveMount } from "../project/mount.ts";
import { workersNetwork } from "../instance/container.ts";
import { ensureNetFiles } from "./net-files.ts";
import {
  type Project,
  resolveGiven,
  resolveProject,
} from "../project/project.ts";
import {
  consentTo,
  type RepositoryConsent,
} from "../project/repository-consent.ts";
import { gitOf } from "../project/project-git.ts";
import { removeRecord, writeRecord } from "../instance/record.ts";
import { forgetHome } from "./ending.ts";
import { workerSeccomp } from "../image/seccomp.ts";
import { forgetSecrets, keepSecrets, type Secret } from "./secrets.ts";
import { ensureHome, ensureVolume } from "../instance/volumes.ts";
import { checkWorkerName } from "./name.ts";
import { checkVariable, type Limits, workerSpec } from "./spec.ts";
import { createWorker, startWorker } from "./worker.ts";
import { insideWorker } from "../instance/paths.ts";
import { type WorkerMount } from "../project/mount.ts";
import { type PreparedHome, prepareWorkerHome } from "../home/worker-home.ts";

export interface SpawnRequest {
  directory: string;
  /** Base directory for relative paths. */
  cwd: string;
  /** The directory, if it is already resolved. */
  resolved?: Project & HostPath;
  /** @default a generated name */
  name?: string | undefined;
  /** The session whose Claude home is mounted. @default a home for this worker */
  session?: string | undefined;
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

export interface SpawnedWorker {
  id: string;
  name: string;
  project: string;
  image: string;
}

/** Creates and starts a worker on a project. */
export async function spawnWorker(
  instance: Instance,
  request: SpawnRequest,
  log: Log,
): Promise<SpawnedWorker> {
  const { worker, undo } = await prepareWorker(instance, request, log);
  try {
    await startWorker(instance.docker, worker.name, worker.id, {
      announces: request.command === undefined,
    });
  } catch (error) {
    await undo();
    throw error;
  }
  return worker;
}

export interface PreparedWorker {
  worker: SpawnedWorker;
  /** Removes the container and everything else that was created for the worker. */
  undo: () => Promise<void>;
}

/** Creates a worker and its record, but does not start it. */
export async function prepareWorker(
  instance: Instance,
  request: SpawnRequest,
  log: Log,
): Promise<PreparedWorker> {
  const resolved = await resolveRequest(instance, request, log);
  const { name, project, image } = resolved;
  const undoSteps: (() => Promise<void> | void)[] = [];
  const undo = async () => {
    for (const step of undoSteps.reverse()) await step();
  };
  try {
    const home = prepareWorkerHome(
      instance,
      { name, session: request.session },
      project,
    );
    undoSteps.push(() => undoWorkerHome(instance, name, home));
    const secrets = request.secrets && request.secrets.length > 0
      ? keepSecrets(instance, name, request.secrets, project)
      : null;
    undoSteps.push(() => forgetSecrets(instance, secrets));
    const spec = await specFor(instance, request, resolved, { home, secrets });
    const { docker } = instance;
    const id = await createWorker(docker, name, spec, resolved.link);
    undoSteps.push(() => removeContainer(docker, id));
    writeRecord(instance, {
      version: 1,
      worker: name,
      container: id,
      session: request.session ?? null,
      project: { path: project.path, uid: project.uid, gid: project.gid },
      image,
      born: "cold",
      home: home.home,
      ephemeral: request.name === undefined,
      once: request.once,
      secrets,
      memoryBytes: resolved.limits?.memoryBytes ?? null,
      oomKilledAt: null,
      createdAt: new Date().toISOString(),
    });
    undoSteps.push(() => removeRecord(instance, name));
    return { worker: { id, name, project: project.path, image }, undo };
  } catch (error) {
    await undo();
    throw error;
  }
}

/** A checked request, and the values that come from the instance. */
interface ResolvedRequest {
  name: string;
  env: string[];
  network: string;
  project: Project & HostPath;
  mounts: WorkerMount[];
  /** Path in the worker of a link to the project, which git needs in a submodule. */
  link: string | undefined;
  image: string;
  limits: Limits | null;
  seccomp: string | undefined;
  netFiles: string | undefined;
}

/** Throws a Failure if the request cannot be fulfilled. */
async function resolveRequest(
  instance: Instance,
  request: SpawnRequest,
  log: Log,
): Promise<ResolvedRequest> {
  const { cwd, allowAnyPath: allowAny = false } = request;
  const name = request.name === undefined
    ? instance.names.worker(randomBytes(4).toString("hex"))
    : checkWorkerName(request.name, instance.names);
  const env = (request.env ?? []).map(checkVariable);
  const network = request.standalone ? "bridge" : await sharedNetwork(instance);
  const project = request.resolved ?? await resolveProject(instance, {
    path: request.directory,
    cwd,
    as: "project",
    allowAny,
  });
  const { mounts, link } = await mountsFor(instance, request, project, log);
  ensureHome(instance);
  const [limits, seccomp, netFiles] = await Promise.all([
    request.limited === false ? null : configuredLimits(instance, log),
    workerSeccomp(instance, log),
    request.standalone ? undefined : ensureNetFiles(instance, network),
    ensureVolume(instance, instance.names.volumes.plugins),
    requireNetworkRuns(instance, network),
  ]);
  const image = request.image ?? workerImage(instance.settings);
  return {
    name,
    env,
    network,
    project,
    mounts,
    link,
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
  project: Project & HostPath,
  log: Log,
): Promise<{ mounts: WorkerMount[]; link: string | undefined }> {
  const { cwd, allowAnyPath: allowAny = false } = request;
  const requested = await Promise.all(
    (request.mounts ?? []).map((mount) =>
      resolveMount(instance, mount, cwd, allowAny)
    ),
  );
  const git = gitOf(instance, project, allowAny);
  const mounts: WorkerMount[] = [...requested, ...git.mounts];
  refuseSameTargets(mounts);
  git.notices.forEach(log);
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
  return { mounts, link: git.link };
}

async function specFor(
  { prefix, home: { home: homeDirectory }, hostHome, docker }: Instance,
  request: SpawnRequest,
  { env, network, project, mounts, image, limits, seccomp, netFiles }:
    ResolvedRequest,
  { home, secrets }: { home: PreparedHome; secrets: string | null },
): Promise<Docker.ContainerCreateOptions> {
  return workerSpec({
    prefix,
    home: hostHome.home,
    user: project,
    project: project.path,
    session: request.session,
    image,
    network,
    seccomp,
    limits,
    sources: {
      ...home.sources,
      netFiles,
      secrets: secrets ? hostHome.workerSecrets(secrets) : undefined,
    },
    env,
    mounts,
    command: request.command,
    terminal: request.terminal ?? false,
    // The container's first process compares the mounts with these inodes.
    gate: {
      home: inodeOf(join(homeDirectory, home.home)),
      checks: [
        gateCheck({
          source: project.path,
          target: insideWorker.workspace,
          ...project,
        }),
        ...mounts.flatMap((mount) => mount.inode ? [gateCheck(mount)] : []),
      ],
      entrypoint: request.command ? await entrypointOf(docker, image) : [],
    },
    keep: request.keep ?? false,
  });
}

/** Resolves the agent's socket; unlike other mounts it may be in /run. */
async function agentMount(
  instance: Instance,
  path: string,
): Promise<WorkerMount> {
  const given = { path, cwd: "/", as: "ssh-agent", allowAny: true };
  const found = await resolveGiven(instance, given);
  if (found.kind !== "other") {
    throw new Failure("usage", `Cannot use "${path}" as ssh-agent`, {
      hint:
        "It is not a socket. Start an agent and set SSH_AUTH_SOCK: eval $(ssh-agent)",
    });
  }
  return {
    source: found.path,
    target: insideWorker.sshAgent,
    readOnly: false,
    inode: found.inode,
  };
}

function gateCheck(
  { source, target, inode = "" }: Omit<WorkerMount, "readOnly">,
): GateCheck {
  return { source, target, inode };
}

/** The image's own entrypoint. */
async function entrypointOf(docker: Docker, image: string): Promise<string[]> {
  const entrypoint = (await inspectImage(docker, image))?.Config.Entrypoint;
  return [entrypoint ?? []].flat();
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

async function configuredLimits(
  { docker, settings }: Pick<Instance, "docker" | "settings">,
  log: Log,
): Promise<Limits> {
  return {
    memoryBytes: settings.WORKER_MEMORY,
    cpus: await capCpus(docker, settings.WORKER_CPUS, log),
    pids: settings.WORKER_PIDS_LIMIT,
  };
}

/**
 * Removes a Claude home that was created for the failed worker. Keeps it if another
 * container now has the name and may be using the home, and keeps session homes.
 */
async function undoWorkerHome(
  instance: Instance,
  name: string,
  { made, home }: PreparedHome,
): Promise<void> {
  if (!made || home !== `workers/${basename(home)}`) return;
  if (await inspectContainer(instance.docker, name)) return;
  await forgetHome(instance, home);
}

/** Throws a `notFound` Failure if the parent is not running. */
async function sharedNetwork(instance: Instance): Promise<string> {
  const parent = instance.self ?? await findParent(instance);
  if (parent?.State !== "running") {
    const state = parent?.State === "paused" ? "paused" : "not running";
    throw new Failure("notFound", `Cannot spawn: the parent is ${state}`, {
      hint: "Start it: claudy daemon start. Or spawn with --standalone.",
    });
  }
  return workersNetwork(instance);
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
