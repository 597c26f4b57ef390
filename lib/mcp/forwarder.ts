// The forwarder: a container in the workers' namespace that carries what they send to
// 127.0.0.1 to the gateway's sockets on the host, and nothing else.

import { existsSync } from "node:fs";
import { createOnce, ownContainer, startContainer } from "../container.ts";
import {
  type Docker,
  inspectContainer,
  isBefore,
  namespaceStart,
  removeContainer,
} from "../docker.ts";
import { execIn } from "../exec.ts";
import type { Instance } from "../instance.ts";
import { roleLabels } from "../labels.ts";
import { restartPolicy } from "../parent-spec.ts";
import { socketDirectory } from "./carrier.ts";
import { readServers } from "./config.ts";

const memoryBytes = 256 * 1024 ** 2;

/** Brings it up where servers are configured and the namespace is there, else down. */
export async function ensureForwarder(instance: Instance): Promise<void> {
  const { docker, names, settings } = instance;
  const image = `${settings.HAL9000_IMAGE_REPO}:parent`;
  const [present, net] = await Promise.all([
    ownContainer(instance, names.forwarder, "forwarder"),
    inspectContainer(docker, names.net),
  ]);
  const ports = configuredPorts(instance);
  const wanted = net?.State.Running && ports.length > 0;
  if (wanted && present) {
    const { Id } = await docker.getImage(image).inspect();
    const same = present.State.Running && present.Image === Id &&
      present.HostConfig.NetworkMode === `container:${net.Id}` &&
      !isBefore(present.State.StartedAt, net.State.StartedAt) &&
      present.Config.Cmd?.join() === ports.join();
    if (same) return;
  }
  // By its id: another command may have put a new one in its place.
  if (present) await removeContainer(docker, present.Id);
  if (!wanted) return;
  const spec = forwarderSpec(instance, image, net.Id, ports);
  await createOnce(docker, names.forwarder, spec);
  await startContainer(docker, names.forwarder);
  await waitUntilListening(instance, ports);
}

/** Who starts it may use it next; a port that somebody has is as good. */
async function waitUntilListening(
  { docker, names }: Instance,
  ports: string[],
): Promise<void> {
  const wait = `for port; do
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do sleep 0.05; done
  done`;
  await execIn(docker, names.forwarder, [
    ...["timeout", "5", "bash", "-c", wait, "bash"],
    ...ports.map((pair) => pair.replace(/=.*/, "")),
  ]);
}

/** In the parent: the engine does not start again what was killed by a command. */
export async function reviveForwarder(instance: Instance): Promise<void> {
  const { docker, names } = instance;
  const [present, since] = await Promise.all([
    ownContainer(instance, names.forwarder, "forwarder"),
    namespaceStart(docker, names.net),
  ]);
  const restarts = present?.State.Restarting ||
    (present?.State.Running && since !== undefined &&
      !isBefore(present.State.StartedAt, since));
  if (!restarts) await ensureForwarder(instance);
}

function configuredPorts({ home, settings }: Instance): string[] {
  if (!existsSync(home.mcpConfig)) return [];
  return [...readServers(home, settings)]
    .map(([name, { port }]) => `${port}=${name}`);
}

export async function removeForwarder(instance: Instance): Promise<void> {
  const { docker, names } = instance;
  if (await ownContainer(instance, names.forwarder, "forwarder")) {
    await removeContainer(docker, names.forwarder);
  }
}

function forwarderSpec(
  { prefix, hostHome, owner }: Instance,
  image: string,
  net: string,
  ports: string[],
): Docker.ContainerCreateOptions {
  return {
    Image: image,
    Entrypoint: ["/scripts/mcp-forwarder"],
    Cmd: ports,
    // Whose the sockets are.
    User: `${owner.uid}:${owner.gid}`,
    Env: ["DENO_DIR=/tmp/deno"],
    Labels: roleLabels(prefix, "forwarder", hostHome.home),
    Healthcheck: { Test: ["NONE"] },
    HostConfig: {
      Init: true,
      NetworkMode: `container:${net}`,
      RestartPolicy: restartPolicy,
      ReadonlyRootfs: true,
      Tmpfs: { "/tmp": "rw,nosuid,nodev,size=64m" },
      CapDrop: ["ALL"],
      SecurityOpt: ["no-new-privileges"],
      Memory: memoryBytes,
      MemorySwap: memoryBytes,
      PidsLimit: 64,
      LogConfig: { Type: "json-file", Config: { "max-size": "1m" } },
      Mounts: [
        {
          Type: "bind",
          Source: hostHome.mcp,
          Target: socketDirectory,
          ReadOnly: true,
        },
      ],
    },
  };
}
