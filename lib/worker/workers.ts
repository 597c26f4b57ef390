// The workers of an instance, found by their labels.

import {
  type Docker,
  familiarName,
  holderOf,
  inspectContainer,
  isBefore,
  namespaceStart,
} from "../docker/docker.ts";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { instanceFilter, label } from "../instance/labels.ts";
import type { WorkerNetwork } from "../instance/settings.ts";
import { didYouMean } from "../std/nearest.ts";
import { readRecords } from "../instance/record.ts";
import { isWarmName } from "./name.ts";

export interface WorkerState {
  name: string;
  id: string;
  /** Docker's state: created, running, paused, exited … */
  state: string;
  /** Docker's status text, such as "Up 5 minutes". */
  status: string;
  image: string;
  project: string;
  session: string | null;
  born: string;
  /** Whether the container is kept after it has exited. */
  keep: boolean;
  createdAt: string;
  /** Docker's network mode; undefined if the engine's list does not have it (Podman). */
  networkMode: string | undefined;
  /** The workers' network, none but the services that nsenter opens, or one of its own. */
  network: WorkerNetwork | "standalone";
  /** Digest of what a warm worker was created from; null for a cold one. */
  inputs: string | null;
}

type Search = Pick<Instance, "docker" | "prefix" | "names" | "home" | "owner">;

/** The workers that have a project: without unclaimed warm workers. */
export async function listWorkers(instance: Search): Promise<WorkerState[]> {
  const workers = (await listContainers(instance))
    .filter(({ name }) => !isWarmName(name, instance.names));
  if (workers.some(isBornWarm)) addRecordFields(instance, workers);
  return workers;
}

/** The unclaimed warm workers. */
export async function listWarm(instance: Search): Promise<WorkerState[]> {
  return (await listContainers(instance))
    .filter(({ name }) => isWarmName(name, instance.names));
}

async function listContainers(
  { docker, prefix }: Search,
): Promise<WorkerState[]> {
  const containers = await docker.listContainers({
    all: true,
    filters: instanceFilter(prefix, "worker"),
  });
  return containers.map(workerState)
    .sort((a, b) => a.name < b.name ? -1 : 1);
}

const isBornWarm = ({ born }: WorkerState) => born === "warm";

/** Labels cannot change: a claimed worker's project and session are in its record. */
function addRecordFields(instance: Search, workers: WorkerState[]): void {
  const records = readRecords(instance);
  for (const worker of workers.filter(isBornWarm)) {
    const record = records.find(({ container }) => container === worker.id);
    worker.project = record?.project.path ?? "";
    worker.session = record?.session ?? null;
  }
}

function workerState(container: Docker.ContainerInfo): WorkerState {
  const labels = container.Labels;
  return {
    name: (container.Names[0] ?? "").slice(1),
    id: container.Id,
    state: container.State,
    status: container.Status,
    image: familiarName(container.Image),
    project: labels[label.project] ?? "",
    session: labels[label.session] ?? null,
    born: labels[label.born] ?? "cold",
    keep: labels[label.keep] === "true",
    createdAt: new Date(container.Created * 1000).toISOString(),
    networkMode: container.HostConfig?.NetworkMode,
    network: kindOfNetwork(container),
    inputs: labels[label.inputs] ?? null,
  };
}

export function kindOfNetwork(
  { Labels, HostConfig }: Pick<Docker.ContainerInfo, "Labels" | "HostConfig">,
): WorkerState["network"] {
  if (Labels[label.network] === "isolated") return "isolated";
  const mode = HostConfig?.NetworkMode;
  return mode === undefined || holderOf(mode) ? "shared" : "standalone";
}

/** The worker with this name or id; throws a `notFound` Failure with suggestions. */
export async function findWorker(
  instance: Search,
  name: string,
): Promise<WorkerState> {
  return requireWorker(await listWorkers(instance), name);
}

/** The worker with this name or id among `workers`; throws as findWorker(). */
export function requireWorker(
  workers: WorkerState[],
  name: string,
): WorkerState {
  const found = pickWorker(workers, name);
  if (found) return found;
  throw new Failure("notFound", `There is no worker "${name}"`, {
    hint: workers.length === 0
      ? "No worker exists. Start one: hal9000-spawn-worker"
      : `${didYouMean(name, workers.map((worker) => worker.name))}` +
        "List them: hal9000-coordinator list",
  });
}

/** The worker with this name or id among `workers`, if any. */
export function pickWorker(
  workers: WorkerState[],
  name: string,
): WorkerState | undefined {
  return workers.find((worker) =>
    worker.name === name || isIdOf(name, worker.id)
  );
}

/** Docker's short ids have 12 digits; a shorter text is taken as a name. */
function isIdOf(text: string, id: string): boolean {
  return text.length >= 12 && id.startsWith(text);
}

/** States of containers with processes, which would lose their network. */
const liveStates = ["running", "paused", "restarting"];

/** Names of the live workers. */
export async function liveWorkers(instance: Search): Promise<string[]> {
  return (await listWorkers(instance))
    .filter(({ state }) => liveStates.includes(state))
    .map(({ name }) => name);
}

/**
 * Names of the workers whose network namespace no longer exists, because its container
 * was stopped or restarted. They cannot join the new namespace: each has only a loopback
 * interface until it is stopped and opened again.
 */
export async function withoutNetwork(
  { docker }: Pick<Instance, "docker">,
  workers: WorkerState[],
): Promise<Set<string>> {
  const live = workers.filter(({ state }) =>
    state === "running" || state === "paused"
  );
  const holders = new Map<string, Promise<string | undefined>>();
  const lost = await Promise.all(live.map(async (worker) => {
    const mode = worker.networkMode ??
      (await inspectContainer(docker, worker.id))?.HostConfig.NetworkMode;
    const holder = holderOf(mode ?? "");
    if (holder === undefined) return [];
    const start = holders.get(holder) ?? namespaceStart(docker, holder);
    holders.set(holder, start);
    const since = await start;
    if (since === undefined) return [worker.name];
    // Creation times come with the list, so most workers need no inspect call.
    if (!isBefore(worker.createdAt, since)) return [];
    const present = await inspectContainer(docker, worker.id);
    return present?.State.Running && isBefore(present.State.StartedAt, since)
      ? [worker.name]
      : [];
  }));
  return new Set(lost.flat());
}
