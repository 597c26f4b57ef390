// Spawning: from a request in a person's words to a running worker and its
// record.

import { randomBytes } from "node:crypto";
import { Failure } from "./errors.ts";
import { workerImage } from "./images/recipes.ts";
import { findParent, type Instance } from "./instance.ts";
import { refuseUnsafe, resolveProject, sessionName } from "./project.ts";
import { listWorkers, stopWorker } from "./workers.ts";
import type { Log } from "./log.ts";
import { writeRecord } from "./record.ts";
import { ensureHome } from "./volumes.ts";
import {
  capCpus,
  checkWorkerName,
  prepareWorkerHome,
  startWorker,
  workerSpec,
} from "./worker.ts";

export interface SpawnRequest {
  directory: string;
  /** What a relative directory is relative to. */
  cwd: string;
  /** Made up where it is left out. */
  name?: string | undefined;
  image?: string | undefined;
}

export interface SpawnedWorker {
  id: string;
  name: string;
  project: string;
  image: string;
}

/** Starts a worker on a project and writes its record. */
export async function spawnWorker(
  instance: Instance,
  request: SpawnRequest,
): Promise<SpawnedWorker> {
  const { docker, settings, prefix } = instance;
  const name = request.name === undefined
    ? instance.names.worker(randomBytes(4).toString("hex"))
    : checkWorkerName(request.name);
  const project = resolveProject(
    request.directory,
    instance.projects,
    request.cwd,
  );
  refuseUnsafe(project.path, {
    home: instance.hostHome.home,
    socket: instance.socket,
  });
  const network = await workersNetwork(instance);
  const limits = await capCpus(docker, {
    memoryBytes: settings.WORKER_MEMORY,
    cpus: settings.WORKER_CPUS,
    pids: settings.WORKER_PIDS_LIMIT,
  });
  const image = request.image ?? workerImage(settings);
  ensureHome(instance);
  const { directory, ...sources } = prepareWorkerHome(instance, name, project);
  const spec = workerSpec({
    name,
    prefix,
    project,
    image,
    network,
    limits,
    sources,
  });
  const id = await startWorker(docker, name, spec);
  writeRecord(instance, {
    version: 1,
    worker: name,
    container: id,
    session: null,
    project,
    image,
    born: "cold",
    home: `workers/${directory}`,
    createdAt: new Date().toISOString(),
  });
  return { id, name, project: project.path, image };
}

/**
 * The worker that runs on the project already, else a new one; one that has
 * ended, as after an engine restart, makes room for it.
 */
export async function spawnOnce(
  instance: Instance,
  request: SpawnRequest,
  log: Log,
): Promise<SpawnedWorker> {
  const project = resolveProject(
    request.directory,
    instance.projects,
    request.cwd,
  );
  const name = request.name ?? sessionName(project.path);
  const workers = (await listWorkers(instance))
    .filter((worker) => worker.project === project.path);
  const running = workers.find(({ state }) => state === "running");
  if (running) {
    const { id, name, image } = running;
    return { id, name, project: project.path, image };
  }
  if (workers.some((worker) => worker.name === name)) {
    await stopWorker(instance, name, log);
  }
  return await spawnWorker(instance, { ...request, name });
}

/** The namespace that the parent lives in, as a network mode for a worker. */
async function workersNetwork(instance: Instance): Promise<string> {
  const parent = instance.self ?? await findParent(instance);
  if (parent?.State !== "running") {
    throw new Failure("notFound", "Cannot spawn: the parent is not running", {
      hint: "Start it: claudy daemon start",
    });
  }
  const mode = parent.HostConfig.NetworkMode;
  return mode.startsWith("container:") ? mode : `container:${parent.Id}`;
}
