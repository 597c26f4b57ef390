// The container that owns the workers' network namespace.

import {
  createOnce,
  ownContainer,
  startContainer,
  stopParent,
} from "./container.ts";
import {
  type Docker,
  holderOf,
  inspectContainer,
  isBefore,
  namespaceStart,
  removeContainer,
} from "./docker.ts";
import { Failure } from "./errors.ts";
import type { Instance } from "./instance.ts";
import type { Log } from "./log.ts";
import { netSpec, type PublishedPort } from "./parent-spec.ts";
import { removePool } from "./pool/mounter.ts";
import { liveWorkers, type WorkerState } from "./workers.ts";

/**
 * Sees to it that the net container runs, with these ports published at least.
 * Throws a `busy` Failure where other ports are asked for under workers.
 */
export async function ensureNet(
  instance: Instance,
  image: string,
  published: PublishedPort[],
): Promise<Docker.ContainerInspectInfo> {
  const { docker, names, prefix } = instance;
  const spec = netSpec(
    { prefix, hostHome: instance.hostHome.home },
    image,
    published,
  );
  let present = await ownContainer(instance, names.net, "net");
  if (present && !publishes(present, spec)) {
    await refuseWithWorkers(instance);
    await stopParent(instance);
    await removePool(instance);
    await removeContainer(docker, names.net);
    present = undefined;
  }
  if (!present) await createOnce(docker, names.net, spec);
  if (!present?.State.Running) await startContainer(docker, names.net);
  return await docker.getContainer(names.net).inspect();
}

/**
 * Names of the workers whose network namespace has ended: its container stopped,
 * or was started again and made a new one. Nothing joins them to that; each has
 * only its own loopback until it is stopped and opened again.
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
    const holder = holderOf(worker.network);
    if (holder === undefined) return [];
    const begun = holders.get(holder) ?? namespaceStart(docker, holder);
    holders.set(holder, begun);
    const since = await begun;
    if (since === undefined) return [worker.name];
    // The list has the time of creation alone: most need no further look.
    if (!isBefore(worker.createdAt, since)) return [];
    const present = await inspectContainer(docker, worker.id);
    return present?.State.Running && isBefore(present.State.StartedAt, since)
      ? [worker.name]
      : [];
  }));
  return new Set(lost.flat());
}

/**
 * In the parent: starts the net container where it has ended, and gives whether
 * the parent itself still lives in its namespace.
 */
export async function keepNet(instance: Instance, log: Log): Promise<boolean> {
  const { docker, names, self } = instance;
  const present = await ownContainer(instance, names.net, "net");
  // A parent that was started by hand has a namespace of its own.
  if (!self || !present || holderOf(networkOf(self)) !== present.Id) {
    return true;
  }
  if (!present.State.Running && !present.State.Restarting) {
    log(`${names.net} has ended; starting it again`);
    await startContainer(docker, names.net);
  }
  const [since, own] = await Promise.all([
    namespaceStart(docker, names.net),
    inspectContainer(docker, self.Id),
  ]);
  return since === undefined || own === undefined ||
    !isBefore(own.State.StartedAt, since);
}

/** The namespace that the parent lives in, as a network mode for a worker. */
export function networkOf(parent: Docker.ContainerInfo): string {
  const mode = parent.HostConfig.NetworkMode;
  return mode.startsWith("container:") ? mode : `container:${parent.Id}`;
}

/** Whether a net container publishes what is asked for, and perhaps more. */
function publishes(
  present: Docker.ContainerInspectInfo,
  spec: Docker.ContainerCreateOptions,
): boolean {
  const bindings: Docker.PortMap = present.HostConfig.PortBindings ?? {};
  const wanted: Docker.PortMap = spec.HostConfig?.PortBindings ?? {};
  return Object.entries(wanted).every(([port, asked]) =>
    JSON.stringify(bindings[port]) === JSON.stringify(asked)
  );
}

/** Ports are fixed when the namespace is made, and workers live in it. */
async function refuseWithWorkers(instance: Instance): Promise<void> {
  const live = await liveWorkers(instance);
  if (live.length === 0) return;
  throw new Failure(
    "busy",
    `Cannot publish other ports under workers: ${live.join(", ")}`,
    { hint: "Stop them first: coordinator stop-all" },
  );
}
