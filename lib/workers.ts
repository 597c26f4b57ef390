// The workers of an instance, found by their labels: listed and stopped.

import { Buffer } from "node:buffer";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { closest } from "fastest-levenshtein";
import type { Docker } from "./docker.ts";
import { engineFailure, removeContainer, statusOf } from "./docker.ts";
import { Failure } from "./errors.ts";
import type { Instance } from "./instance.ts";
import { instanceFilter, label } from "./labels.ts";
import type { Log } from "./log.ts";
import { writeWhole } from "./owned.ts";
import { readRecord, removeRecord } from "./record.ts";

export interface WorkerState {
  name: string;
  id: string;
  state: string;
  /** Docker's words: "Up 5 minutes". */
  status: string;
  image: string;
  project: string;
  session: string | null;
  born: string;
  createdAt: string;
}

/** How long a worker may take to end by itself before it is killed. */
const stopSeconds = 10;

/** Lines of a worker's log that are kept when it is removed. */
const keptLogLines = 10_000;

export async function listWorkers(
  { docker, prefix }: Pick<Instance, "docker" | "prefix">,
): Promise<WorkerState[]> {
  const containers = await docker.listContainers({
    all: true,
    filters: instanceFilter(prefix, "worker"),
  });
  return containers.map(workerState)
    .sort((a, b) => a.name < b.name ? -1 : 1);
}

function workerState(container: Docker.ContainerInfo): WorkerState {
  const labels = container.Labels;
  return {
    name: (container.Names[0] ?? "").slice(1),
    id: container.Id,
    state: container.State,
    status: container.Status,
    image: container.Image,
    project: labels[label.project] ?? "",
    session: labels[label.session] ?? null,
    born: labels[label.born] ?? "cold",
    createdAt: new Date(container.Created * 1000).toISOString(),
  };
}

/** The worker called `name`; throws a `notFound` Failure with the nearest. */
export async function findWorker(
  instance: Pick<Instance, "docker" | "prefix">,
  name: string,
): Promise<WorkerState> {
  const workers = await listWorkers(instance);
  const found = workers.find((worker) => worker.name === name);
  if (found) return found;
  throw new Failure("notFound", `There is no worker "${name}"`, {
    hint: workers.length === 0
      ? "No worker exists; spawn one with spawn-worker."
      : `Did you mean "${closest(name, workers.map((w) => w.name))}"?`,
  });
}

/** Ends a worker, keeps its log, and removes it and its record. */
export async function stopWorker(
  instance: Instance,
  name: string,
  log: Log,
): Promise<void> {
  const worker = await findWorker(instance, name);
  const container = instance.docker.getContainer(worker.id);
  try {
    await container.stop({ t: stopSeconds });
  } catch (error) {
    // 304: it had ended already.
    if (statusOf(error) !== 304) {
      throw engineFailure(error, `Cannot stop worker "${name}"`);
    }
  }
  await keepLog(instance, worker);
  await removeContainer(instance.docker, worker.id);
  const record = readRecord(instance, name, log);
  if (record && name.startsWith(instance.names.worker(""))) {
    // Its name was made up and will not come again.
    rmSync(join(instance.home.home, record.home), {
      recursive: true,
      force: true,
    });
  }
  removeRecord(instance, name);
}

async function keepLog(
  { docker, home, owner }: Instance,
  worker: WorkerState,
): Promise<void> {
  const raw = await docker.getContainer(worker.id).logs({
    stdout: true,
    stderr: true,
    timestamps: true,
    tail: keptLogLines,
  });
  writeWhole(home.log(worker.name), withoutFrames(raw), owner);
}

/**
 * The text of a log whose streams Docker has multiplexed: frames of 8 bytes of
 * header, the last four of which are the length of what follows.
 * https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerAttach
 */
export function withoutFrames(log: Uint8Array): Uint8Array {
  const buffer = Buffer.from(log.buffer, log.byteOffset, log.byteLength);
  const parts: Uint8Array[] = [];
  for (let at = 0; at + 8 <= buffer.length;) {
    const length = buffer.readUInt32BE(at + 4);
    parts.push(buffer.subarray(at + 8, at + 8 + length));
    at += 8 + length;
  }
  return Buffer.concat(parts);
}
