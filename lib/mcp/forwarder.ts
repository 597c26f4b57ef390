// The forwarder: a container in the workers' namespace that carries what they send to
// 127.0.0.1 to the gateway's sockets on the host, and nothing else.

import { existsSync } from "node:fs";
import { createConnection, createServer } from "node:net";
import { ownContainer } from "../container.ts";
import {
  createContainer,
  type Docker,
  inspectContainer,
  removeContainer,
} from "../docker.ts";
import { engineFailure } from "../docker-errors.ts";
import type { Instance } from "../instance.ts";
import { roleLabels } from "../labels.ts";
import { readServers } from "./config.ts";

/** Where the sockets are inside. */
const inside = "/run/mcp";

const memoryBytes = 256 * 1024 ** 2;

/** Brings it up where servers are configured and the namespace is there, else down. */
export async function ensureForwarder(instance: Instance): Promise<void> {
  const { docker, names, home, settings } = instance;
  const image = `${settings.HAL9000_IMAGE_REPO}:parent`;
  const [present, net] = await Promise.all([
    ownContainer(instance, names.forwarder, "forwarder"),
    inspectContainer(docker, names.net),
  ]);
  const ports = existsSync(home.mcpConfig)
    ? [...readServers(home, settings)].map(([name, { port }]) =>
      `${port}=${name}`
    )
    : [];
  const wanted = net?.State.Running && ports.length > 0;
  if (wanted && present) {
    const { Id } = await docker.getImage(image).inspect();
    const same = present.State.Running && present.Image === Id &&
      present.HostConfig.NetworkMode === `container:${net.Id}` &&
      present.State.StartedAt > net.State.StartedAt &&
      present.Config.Cmd?.join() === ports.join();
    if (same) return;
  }
  if (present) await removeContainer(docker, names.forwarder);
  if (!wanted) return;
  try {
    const spec = forwarderSpec(instance, image, net.Id, ports);
    const container = await createContainer(docker, names.forwarder, spec);
    await container.start();
  } catch (error) {
    throw engineFailure(error, `Cannot start ${names.forwarder}`);
  }
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
    Labels: roleLabels(prefix, "forwarder"),
    Healthcheck: { Test: ["NONE"] },
    HostConfig: {
      Init: true,
      NetworkMode: `container:${net}`,
      RestartPolicy: { Name: "unless-stopped" },
      ReadonlyRootfs: true,
      Tmpfs: { "/tmp": "rw,nosuid,nodev,size=64m" },
      CapDrop: ["ALL"],
      SecurityOpt: ["no-new-privileges"],
      Memory: memoryBytes,
      MemorySwap: memoryBytes,
      PidsLimit: 64,
      LogConfig: { Type: "json-file", Config: { "max-size": "1m" } },
      Mounts: [
        { Type: "bind", Source: hostHome.mcp, Target: inside, ReadOnly: true },
      ],
    },
  };
}

/** What runs in it: listens on each PORT=NAME of 127.0.0.1. */
export async function forward(ports: string[]): Promise<void> {
  await Promise.all(ports.map(async (pair) => {
    const [port = "", name = ""] = pair.split("=");
    const server = createServer((client) => {
      const gateway = createConnection(`${inside}/${name}.sock`);
      // Where either ends, the other does: no call is left hanging.
      const end = () => {
        client.destroy();
        gateway.destroy();
      };
      client.on("error", end).on("close", end);
      gateway.on("error", end).on("close", end);
      client.setNoDelay(true);
      client.pipe(gateway);
      gateway.pipe(client);
    });
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(Number(port), "127.0.0.1", resolve);
    });
  }));
}
