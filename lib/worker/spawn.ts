// Spawns a worker: creates its container and its record, and starts it.

import { projectDatabase, recordedProject } from "../project/project.ts";
import { basename, join } from "node:path";
import {
  type Docker,
  inspectContainer,
  inspectImage,
  removeContainer,
} from "../docker/docker.ts";
import { userInContainers } from "../docker/engine-info.ts";
import { type PreparedHome, prepareWorkerHome } from "../home/worker-home.ts";
import type { Instance } from "../instance/instance.ts";
import { insideWorker } from "../instance/paths.ts";
import { removeRecord, writeRecord } from "../instance/record.ts";
import { relayPort } from "../relay/names.ts";
import { stageSnapshot } from "../project/guarding.ts";
import type { WorkerMount } from "../project/mount.ts";
import { inodeOf } from "../std/hostpath.ts";
import { messageOf } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import type { Owner } from "../std/owned.ts";
import { forgetHome } from "./ending.ts";
import type { GateCheck } from "./gate.ts";
import {
  type ResolvedRequest,
  resolveRequest,
  type SpawnRequest,
} from "./request.ts";
import { isolatedMode, newMark, servicesOf } from "./network.ts";
import { runPostCreate } from "./post-create.ts";
import { forgetSecrets, keepSecrets } from "./secrets.ts";
import { timeZone, workerSpec } from "./spec.ts";
import { createWorker, startWorker } from "./worker.ts";

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
  // A worker with a command of its own may end at any time.
  if (request.command === undefined) await runPostCreate(instance, worker, log);
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
    for (const step of undoSteps.reverse()) {
      try {
        await step();
      } catch (error) {
        // The caller throws the error that made the spawn fail.
        log(`warning: Cannot undo all of "${name}": ${messageOf(error)}`);
      }
    }
  };
  const user = await userInContainers(
    instance.docker,
    project,
    `"${project.path}"`,
  );
  try {
    const home = prepareWorkerHome(
      instance,
      { name, session: request.session, user },
      project,
    );
    undoSteps.push(() => undoWorkerHome(instance, name, home));
    const secrets = request.secrets && request.secrets.length > 0
      ? keepSecrets(instance, name, request.secrets, project)
      : null;
    undoSteps.push(() => forgetSecrets(instance, secrets));
    const spec = await specFor(instance, request, resolved, {
      home,
      secrets,
      user,
    });
    const { docker } = instance;
    const id = await createWorker(docker, name, spec, resolved.link);
    undoSteps.push(() => removeContainer(docker, id));
    if (resolved.snapshot) {
      stageSnapshot(instance, request.session ?? name, resolved.snapshot)
        .commit();
    }
    writeRecord(instance, {
      version: 1,
      worker: name,
      container: id,
      session: request.session ?? null,
      ...recordedProject(project, request.copyOf),
      image,
      born: "cold",
      home: home.home,
      ephemeral: request.name === undefined,
      once: request.once,
      ...(instance.settings.UNGUARDED ? { unguarded: true } : {}),
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

async function specFor(
  instance: Instance,
  request: SpawnRequest,
  {
    env,
    network,
    relay,
    project,
    mounts,
    caches,
    image,
    limits,
    seccomp,
    netFiles,
  }: ResolvedRequest,
  { home, secrets, user }: {
    home: PreparedHome;
    secrets: string | null;
    user: Owner;
  },
): Promise<Docker.ContainerCreateOptions> {
  const { prefix, home: homePaths, hostHome, docker } = instance;
  const isolated = network === isolatedMode;
  return workerSpec({
    prefix,
    home: hostHome.home,
    user,
    project: project.path,
    copyOf: request.copyOf,
    session: request.session,
    image,
    network,
    relay: relay === "on",
    seccomp,
    limits,
    sources: {
      ...home.sources,
      credentials: relay === "off"
        ? hostHome.credentials
        : hostHome.noCredentials,
      netFiles,
      secrets: secrets ? hostHome.workerSecrets(secrets) : undefined,
    },
    // First, so that --env can set another time zone.
    env: [
      `TZ=${timeZone()}`,
      ...(request.standalone ? [] : [
        `HAL9000_CHROMA_DATABASE=${
          projectDatabase(request.copyOf ?? project.path)
        }`,
      ]),
      ...(isolated ? [newMark()] : []),
      ...env,
    ],
    mounts,
    caches,
    command: request.command,
    terminal: request.terminal ?? false,
    // The container's first process compares the mounts with these inodes.
    gate: {
      home: inodeOf(join(homePaths.home, home.home)),
      checks: [
        gateCheck({
          source: project.path,
          target: insideWorker.workspace,
          ...project,
        }),
        ...mounts.filter(({ inode, within }) => inode || within)
          .map(gateCheck),
      ],
      ports: isolated
        ? servicesOf(instance, "isolated").map(({ port }) => port)
          .filter((port) => relay === "on" || port !== relayPort)
        : [],
      entrypoint: request.command ? await entrypointOf(docker, image) : [],
    },
    keep: request.keep ?? false,
  });
}

function gateCheck(
  { source, target, inode, within }: Omit<WorkerMount, "readOnly">,
): GateCheck {
  return { source, target, inode, within };
}

/** The image's own entrypoint. */
async function entrypointOf(docker: Docker, image: string): Promise<string[]> {
  const entrypoint = (await inspectImage(docker, image))?.Config.Entrypoint;
  return [entrypoint ?? []].flat();
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
