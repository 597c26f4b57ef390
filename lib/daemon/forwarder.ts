// The forwarder: a container in the workers' namespace that forwards connections to
// the ports of services to the sockets of these services.

import { rmSync } from "node:fs";
import { join } from "node:path";
import {
  createOnce,
  ownContainer,
  startContainer,
} from "../instance/container.ts";
import {
  type Docker,
  inspectContainer,
  isBefore,
  namespaceStart,
  removeContainer,
} from "../docker/docker.ts";
import { userInContainers } from "../docker/engine-info.ts";
import { execIn } from "../docker/exec.ts";
import type { Instance } from "../instance/instance.ts";
import { bind, serviceSpec } from "../instance/container-spec.ts";
import { canHold, holdPorts, servicePorts } from "./net.ts";
import { restartPolicy } from "./specs.ts";
import { serviceUsers } from "../instance/service-users.ts";
import {
  socketDirectory,
  waysDirectory,
} from "../gateway/forwarder/carrier.ts";
import { configuredServers } from "../mcp/offer.ts";

const memoryBytes = 512 * 1024 ** 2;

/** Starts the forwarder if the net container runs; otherwise removes it. */
export async function ensureForwarder(instance: Instance): Promise<void> {
  const { docker, home, names, settings, self } = instance;
  const image = self?.ImageID ?? `${settings.HAL9000_IMAGE_REPO}:parent`;
  const [present, net] = await Promise.all([
    ownContainer(instance, names.forwarder, "forwarder"),
    inspectContainer(docker, names.net),
  ]);
  const ports = carriedPorts(instance);
  const wanted = net?.State.Running;
  if (wanted && present) {
    const { Id } = await docker.getImage(image).inspect();
    const same = present.State.Running && present.Image === Id &&
      present.HostConfig.NetworkMode === `container:${net.Id}` &&
      !isBefore(present.State.StartedAt, net.State.StartedAt) &&
      hasHome(instance, present) &&
      present.Config.Cmd?.join() === ports.join();
    if (same) return;
  }
  // Before the old forwarder is removed, so that no worker can take its ports.
  if (wanted && canHold(net)) {
    await holdPorts(instance, servicePorts(instance));
  }
  // By id: another command may have created a new one of this name.
  if (present) {
    await removeContainer(docker, present.Id);
    dropServices(instance, present);
  }
  if (!wanted) return;
  const { gid } = await userInContainers(docker, instance.owner, home.home);
  const spec = forwarderSpec(instance, gid, image, net.Id, ports);
  await createOnce(docker, names.forwarder, spec);
  await startContainer(docker, names.forwarder);
  await waitUntilListening(instance, servicePorts(instance));
}

/** Removes the sockets of a removed forwarder, some of which may not be served again. */
function dropServices(
  { home }: Pick<Instance, "home">,
  { Config }: Docker.ContainerInspectInfo,
): void {
  for (const argument of Config.Cmd ?? []) {
    const port = parseInt(argument);
    if (port) rmSync(join(home.services, `${port}.sock`), { force: true });
  }
}

/** The next command may use the forwarder. Does not wait for occupied ports. */
async function waitUntilListening(
  { docker, names }: Pick<Instance, "docker" | "names">,
  ports: number[],
): Promise<void> {
  const command = ["/scripts/mcp-forwarder", "wait", ...ports.map(String)];
  await execIn(docker, names.forwarder, command);
}

/**
 * In the parent: the engine does not restart a container that was killed by a
 * command.
 */
export async function reviveForwarder(instance: Instance): Promise<void> {
  const { docker, names } = instance;
  const [present, since] = await Promise.all([
    ownContainer(instance, names.forwarder, "forwarder"),
    namespaceStart(docker, names.net),
  ]);
  const restarts = present && hasHome(instance, present) &&
    (present.State.Restarting ||
      (present.State.Running && since !== undefined &&
        !isBefore(present.State.StartedAt, since)));
  if (!restarts) await ensureForwarder(instance);
}

/** A parent that was started by hand may use another home. */
function hasHome(
  { hostHome }: Pick<Instance, "hostHome">,
  { Mounts }: Docker.ContainerInspectInfo,
): boolean {
  return Mounts.some(({ Source }) => Source === hostHome.ways);
}

/** Arguments: `carry`, ChromaDB's port, and PORT=NAME of each MCP server. */
function carriedPorts(
  instance: Pick<Instance, "home" | "settings">,
): string[] {
  const servers = configuredServers(instance, () => {});
  return [
    "carry",
    String(instance.settings.CHROMADB_PORT),
    ...[...servers].map(([name, { port }]) => `${port}=${name}`),
    ...(instance.settings.HAL9000_RELAY === "on" ? ["--relay"] : []),
  ];
}

function forwarderSpec(
  { prefix, hostHome }: Pick<Instance, "prefix" | "hostHome">,
  gid: number,
  image: string,
  net: string,
  ports: string[],
): Docker.ContainerCreateOptions {
  return serviceSpec({ prefix, hostHome }, {
    role: "forwarder",
    image,
    command: ["/scripts/mcp-forwarder", ...ports],
    // A user that only the net container shares, and the group that owns the
    // sockets.
    user: `${serviceUsers.ports}:${gid}`,
    memoryBytes,
    rights: {
      NetworkMode: `container:${net}`,
      RestartPolicy: restartPolicy,
      Mounts: [
        bind(hostHome.mcp, socketDirectory, true),
        bind(hostHome.ways, waysDirectory),
      ],
    },
  });
}
