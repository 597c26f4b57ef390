// The container that owns the workers' network namespace.

import {
  createOnce,
  ownContainer,
  startContainer,
  stopParent,
} from "../instance/container.ts";
import { type Docker, removeContainer } from "../docker/docker.ts";
import { Failure } from "../std/errors.ts";
import { execIn } from "../docker/exec.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { configuredServers } from "../mcp/offer.ts";
import { netSpec, type PublishedPort } from "./specs.ts";
import { removePool } from "../nsenter/container.ts";
import { liveWorkers } from "../worker/workers.ts";

/**
 * Ensures that the net container runs, publishes at least these ports, and reserves
 * the ports of services. Throws a `busy` Failure if other ports are requested while
 * workers run.
 */
export async function ensureNet(
  instance: Instance,
  image: string,
  published: PublishedPort[],
  log: Log,
): Promise<Docker.ContainerInspectInfo> {
  const { docker, names, prefix } = instance;
  const spec = netSpec(
    { prefix, hostHome: instance.hostHome.home },
    image,
    published,
    servicePorts(instance),
  );
  let present = await ownContainer(instance, names.net, "net");
  const live = present ? await liveWorkers(instance) : [];
  if (present && !publishes(present, spec)) {
    refuseWithWorkers(live);
    await removeNet(instance);
    present = undefined;
  } else if (present && !canHold(present)) {
    if (live.length === 0) {
      await removeNet(instance);
      present = undefined;
    } else {
      log(
        `warning: ${names.net} is from an earlier version: workers can take the ` +
          `ports of services. Stop the workers, then: claudy daemon restart`,
      );
    }
  }
  if (!present) await createOnce(docker, names.net, spec);
  if (!present?.State.Running) await startContainer(docker, names.net);
  return await docker.getContainer(names.net).inspect();
}

/** In the parent: restarts the net container if it has ended. */
export async function keepNet(instance: Instance, log: Log): Promise<void> {
  const { docker, names } = instance;
  const present = await ownContainer(instance, names.net, "net");
  if (!present || present.State.Running || present.State.Restarting) return;
  log(`${names.net} has ended; starting it again`);
  await startContainer(docker, names.net);
}

/**
 * The ports of services: ChromaDB's, and those of the configured MCP servers; the
 * latter are left out if their configuration cannot be read.
 */
export function servicePorts(
  instance: Pick<Instance, "home" | "settings">,
): number[] {
  const servers = configuredServers(instance, () => {});
  return [
    instance.settings.CHROMADB_PORT,
    ...[...servers].map(([, { port }]) => port),
  ];
}

/**
 * Makes the net container reserve exactly these ports, whether or not anything
 * listens on them. A port that a worker occupies stays with it until it is free.
 */
export async function holdPorts(
  { docker, names }: Pick<Instance, "docker" | "names">,
  ports: number[],
): Promise<void> {
  const command = ["/scripts/net", "set", ...ports.map(String)];
  const { exitCode, output } = await execIn(docker, names.net, command);
  if (exitCode === 0) return;
  throw new Failure("failed", `${names.net} cannot hold ports: ${output}`, {
    hint: "Stop the workers, then: claudy daemon restart",
  });
}

/** Whether the container's version reserves ports. */
export function canHold({ Config }: Docker.ContainerInspectInfo): boolean {
  return Config.Cmd?.[0] === "hold";
}

/** Also removes what depends on it: the parent, the pool and the forwarder. */
export async function removeNet(instance: Instance): Promise<void> {
  const { docker, names } = instance;
  await stopParent(instance);
  await removePool(instance);
  for (const role of ["forwarder", "net"] as const) {
    if (await ownContainer(instance, names[role], role)) {
      await removeContainer(docker, names[role]);
    }
  }
}

/** Whether a net container publishes at least the requested ports. */
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

/** Ports are fixed when the namespace is created, and workers live in it. */
function refuseWithWorkers(live: string[]): void {
  if (live.length === 0) return;
  throw new Failure(
    "busy",
    `Cannot change the published ports while workers run: ${live.join(", ")}`,
    { hint: "Stop them first: claudy stop --all" },
  );
}
