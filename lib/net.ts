// The container that owns the workers' network namespace.

import {
  createOnce,
  ownContainer,
  startContainer,
  stopParent,
} from "./container.ts";
import { type Docker, removeContainer } from "./docker.ts";
import { Failure } from "./errors.ts";
import type { Instance } from "./instance.ts";
import { netSpec, type PublishedPort } from "./parent-spec.ts";
import { removePool } from "./pool/mounter.ts";
import { liveWorkers } from "./workers.ts";

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
  const spec = netSpec(prefix, image, published);
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
