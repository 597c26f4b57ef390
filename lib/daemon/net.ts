// The container that owns the workers' network namespace.

import { isDeepStrictEqual } from "node:util";
import * as v from "valibot";
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
import {
  filteringUser,
  netSpec,
  portsUser,
  type PublishedPort,
} from "./specs.ts";
import { removePool } from "../nsenter/container.ts";
import { servicesOf } from "../worker/network.ts";
import { liveWorkers } from "../worker/workers.ts";

/** What the user asks of the workers' network. */
export interface NetworkRequest {
  published: PublishedPort[];
  /** Also if the settings do not. */
  allowHost: boolean;
}

export const noRequest: NetworkRequest = { published: [], allowHost: false };

/**
 * Ensures that the net container runs, publishes at least these ports, reserves the
 * ports of services, and keeps workers from the host unless that is allowed. Throws a
 * `busy` Failure if the request needs another network while workers run.
 */
export async function ensureNet(
  instance: Instance,
  image: string,
  request: NetworkRequest,
  log: Log,
): Promise<Docker.ContainerInspectInfo> {
  const { docker, names, prefix, settings } = instance;
  let present = await ownContainer(instance, names.net, "net");
  const open = present ? publishedBy(present) : [];
  const publishes = request.published.every((wanted) =>
    open.some((port) => isDeepStrictEqual(port, wanted))
  );
  const spec = netSpec({ prefix, hostHome: instance.hostHome.home }, {
    image,
    published: publishes ? open : request.published,
    held: servicePorts(instance),
    allowHost: request.allowHost || settings.ALLOW_HOST,
  });
  if (present) {
    const live = await liveWorkers(instance);
    const users = live.join(", ");
    const refused = !publishes
      ? `Cannot change the published ports while workers run: ${users}`
      : request.allowHost && refusesHost(present)
      ? `Cannot allow access to the host while workers run: ${users}`
      : undefined;
    if (refused !== undefined && live.length > 0) throw busy(refused);
    const outdated = whatIsOutdated(present, spec);
    if (
      refused !== undefined || (outdated !== undefined && live.length === 0)
    ) {
      await removeNet(instance);
      present = undefined;
    } else if (outdated !== undefined) {
      log(
        `warning: ${names.net} is from before: ${outdated}. Stop the workers, ` +
          "then: claudy daemon restart",
      );
    }
  }
  if (!present) await createOnce(docker, names.net, spec);
  if (!present?.State.Running) await startContainer(docker, names.net);
  return await docker.getContainer(names.net).inspect();
}

/** How a net container from an earlier version or other settings differs. */
function whatIsOutdated(
  present: Docker.ContainerInspectInfo,
  spec: Docker.ContainerCreateOptions,
): string | undefined {
  if (!canHold(present)) return "workers can take the ports of services";
  const wanted = spec.User === filteringUser;
  if (wanted === refusesHost(present)) return undefined;
  return `workers ${wanted ? "can" : "cannot"} reach the host`;
}

/** Whether it was created to keep workers from the host. */
export function refusesHost({ Config }: Docker.ContainerInspectInfo): boolean {
  return Config.User === filteringUser;
}

/**
 * Why the workers in a running net container can reach the host; undefined if they
 * cannot.
 */
export async function hostFault(
  { docker }: Pick<Instance, "docker">,
  net: Docker.ContainerInspectInfo,
): Promise<string | undefined> {
  if (!refusesHost(net)) return "the network was started with --allow-host";
  const command = ["/scripts/net", "look"];
  const { exitCode, output } = await execIn(docker, net.Id, command, {
    user: filteringUser,
  });
  if (exitCode !== 0) return output.trim();
  return v.parse(lookAnswer, output).fault ?? undefined;
}

const lookAnswer = v.pipe(
  v.string(),
  v.parseJson(),
  v.object({ fault: v.nullable(v.string()) }),
);

/** In the parent: restarts the net container if it has ended. */
export async function keepNet(instance: Instance, log: Log): Promise<void> {
  const { docker, names } = instance;
  const present = await ownContainer(instance, names.net, "net");
  if (!present || present.State.Running || present.State.Restarting) return;
  log(`${names.net} has ended; starting it again`);
  await startContainer(docker, names.net);
}

/**
 * The ports of services: ChromaDB's, the relay's, and those of the configured MCP servers;
 * the latter are left out if their configuration cannot be read.
 */
export function servicePorts(
  instance: Pick<Instance, "home" | "settings">,
): number[] {
  return servicesOf(instance, "shared").map(({ port }) => port);
}

/**
 * Makes the net container reserve exactly these ports, whether or not anything
 * listens on them. Returns those that a worker occupies.
 */
export async function holdPorts(
  { docker, names }: Pick<Instance, "docker" | "names">,
  ports: number[],
): Promise<number[]> {
  const command = ["/scripts/net", "set", ...ports.map(String)];
  const { exitCode, output } = await execIn(docker, names.net, command, {
    user: portsUser,
  });
  if (exitCode === 0) return v.parse(holdAnswer, output).taken;
  throw new Failure("failed", `${names.net} cannot hold ports: ${output}`, {
    hint: "Stop the workers, then: claudy daemon restart",
  });
}

const holdAnswer = v.pipe(
  v.string(),
  v.parseJson(),
  v.object({ taken: v.array(v.number()) }),
);

/** Whether the container's version reserves ports. */
export function canHold({ Config }: Docker.ContainerInspectInfo): boolean {
  return Config.Cmd?.[0] === "hold";
}

/** Also removes what depends on it: the parent, the pool and nsenter. */
export async function removeNet(instance: Instance): Promise<void> {
  const { docker, names } = instance;
  await stopParent(instance);
  await removePool(instance);
  const left = [
    // Of an earlier version.
    { name: names.formerForwarder, role: "forwarder" },
    { name: names.net, role: "net" },
  ] as const;
  for (const { name, role } of left) {
    if (await ownContainer(instance, name, role)) {
      await removeContainer(docker, name);
    }
  }
}

/** The ports that a net container publishes on the host. */
function publishedBy(
  { HostConfig }: Docker.ContainerInspectInfo,
): PublishedPort[] {
  const bindings: Docker.PortMap = HostConfig.PortBindings ?? {};
  return Object.entries(bindings).flatMap(([port, hosts]) =>
    (hosts ?? []).map(({ HostIp = "", HostPort = "" }) => ({
      address: HostIp,
      hostPort: HostPort,
      containerPort: port.replace("/tcp", ""),
    }))
  );
}

/** These are fixed when the namespace is created, and workers live in it. */
const busy = (message: string) =>
  new Failure("busy", message, { hint: "Stop them first: claudy stop --all" });
