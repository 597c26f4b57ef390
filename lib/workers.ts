// The workers of an instance, found by their labels.

import type { Docker } from "./docker.ts";
import { Failure } from "./errors.ts";
import type { Instance } from "./instance.ts";
import { instanceFilter, label } from "./labels.ts";
import { didYouMean } from "./nearest.ts";

export interface WorkerState {
  name: string;
  id: string;
  /** Docker's word: created, running, paused, exited … */
  state: string;
  /** Docker's words: "Up 5 minutes". */
  status: string;
  image: string;
  project: string;
  session: string | null;
  born: string;
  /** Whether it stays when it has ended. */
  keep: boolean;
  createdAt: string;
}

type Labelled = Pick<Instance, "docker" | "prefix">;

export async function listWorkers(
  { docker, prefix }: Labelled,
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
    keep: labels[label.keep] === "true",
    createdAt: new Date(container.Created * 1000).toISOString(),
  };
}

/** The worker of this name or id; throws a `notFound` Failure with the nearest. */
export async function findWorker(
  instance: Labelled,
  name: string,
): Promise<WorkerState> {
  const [found] = await findWorkers(instance, [name]);
  return found as WorkerState;
}

/** The workers of these names or ids, all or none. */
export async function findWorkers(
  instance: Labelled,
  names: string[],
): Promise<WorkerState[]> {
  const workers = await listWorkers(instance);
  return [...new Set(names)].map((name) => {
    const found = pickWorker(workers, name);
    if (found) return found;
    throw new Failure("notFound", `There is no worker "${name}"`, {
      hint: workers.length === 0
        ? "No worker exists; spawn one with spawn-worker."
        : `${
          didYouMean(name, workers.map((worker) => worker.name))
        }See coordinator list.`,
    });
  });
}

/** The worker of this name or id among `workers`, undefined where it is not. */
export function pickWorker(
  workers: WorkerState[],
  name: string,
): WorkerState | undefined {
  return workers.find((worker) =>
    worker.name === name || isIdOf(name, worker.id)
  );
}

/** Docker's short ids have 12 digits; fewer could be a name. */
function isIdOf(text: string, id: string): boolean {
  return text.length >= 12 && id.startsWith(text);
}

/** Of containers that have processes, which would lose their network. */
const liveStates = ["running", "paused", "restarting"];

/** Names of the workers that live. */
export async function liveWorkers(instance: Labelled): Promise<string[]> {
  return (await listWorkers(instance))
    .filter(({ state }) => liveStates.includes(state))
    .map(({ name }) => name);
}
