// Container specs of the net container and the parent.

import type { Docker } from "../docker/docker.ts";
import { Failure } from "../std/errors.ts";
import {
  bind,
  hardening,
  serviceSpec,
  volumeMount,
} from "../instance/container-spec.ts";
import { roleLabels } from "../instance/labels.ts";
import { cgroups, hostMount, insideParent } from "../instance/paths.ts";
import { serviceUsers } from "../instance/service-users.ts";
import { newMark } from "../worker/network.ts";

/**
 * Not unless-stopped: when an engine restarts after a crash, it stops the
 * containers that still run, and counts that as a manual stop. See docs/adr/0013.
 */
export const restartPolicy = { Name: "always" } as const;

/** A port of the namespace that is published on the host. */
export interface PublishedPort {
  address: string;
  hostPort: string;
  containerPort: string;
}

/**
 * Parses [ADDRESS:]HOST:CONTAINER; the default address is 127.0.0.1. Throws a
 * `usage` Failure.
 */
export function parsePublished(text: string): PublishedPort {
  const match = /^(?:(\d+\.\d+\.\d+\.\d+):)?(\d+):(\d+)$/.exec(text);
  const [, address = "127.0.0.1", hostPort = "", containerPort = ""] = match ??
    [];
  const legal = [hostPort, containerPort].every((port) =>
    Number(port) >= 1 && Number(port) <= 65535
  );
  if (!match || !legal) {
    throw new Failure(
      "usage",
      `--publish must be [ADDRESS:]HOST:CONTAINER, got "${text}"`,
      { hint: "For instance 3000:3000, or 0.0.0.0:8080:3000." },
    );
  }
  return { address, hostPort, containerPort };
}

const netMemory = 128 * 1024 ** 2;

/** The user of the programs in the net container; also of commands that run there. */
export const portsUser = `${serviceUsers.ports}:${serviceUsers.ports}`;

/** Root until it has set the filter, which keeps workers from the host. */
export const filteringUser = `0:${serviceUsers.ports}`;

/**
 * The container that owns the namespace. It reserves the ports of services and, unless
 * `allowHost`, keeps workers from the host.
 */
export function netSpec(
  { prefix, hostHome }: { prefix: string; hostHome: string },
  { image, published, held, allowHost }: {
    image: string;
    published: PublishedPort[];
    held: number[];
    allowHost: boolean;
  },
): Docker.ContainerCreateOptions {
  const ports = published.map(({ containerPort }) => `${containerPort}/tcp`);
  const spec = serviceSpec({ prefix, hostHome: { home: hostHome } }, {
    role: "net",
    image,
    command: ["/scripts/net", "hold", ...held.map(String)],
    user: allowHost ? portsUser : filteringUser,
    memoryBytes: netMemory,
    rights: {
      NetworkMode: "bridge",
      RestartPolicy: restartPolicy,
      ...(allowHost ? {} : { CapAdd: ["NET_ADMIN", "SETUID", "SETGID"] }),
      PortBindings: Object.fromEntries(
        published.map(({ address, hostPort }, index) => [
          ports[index],
          [{ HostIp: address, HostPort: hostPort }],
        ]),
      ),
    },
  });
  return {
    ...spec,
    Env: [...spec.Env ?? [], newMark()],
    Hostname: prefix,
    ExposedPorts: Object.fromEntries(ports.map((port) => [port, {}])),
  };
}

export interface ParentRequest {
  prefix: string;
  image: string;
  hostHome: string;
  socket: string;
  roots: string[];
  volumes: { chromadb: string; plugins: string; memorybank: string };
  claudeConfig: string;
  memoryBytes: number;
  cpus: number;
  env: Record<string, string>;
}

export function parentSpec(
  request: ParentRequest,
): Docker.ContainerCreateOptions {
  const { volumes } = request;
  return {
    Image: request.image,
    Env: Object.entries({
      HAL9000_PREFIX: request.prefix,
      HAL9000_HOME: insideParent.home,
      ...request.env,
    }).map(([key, value]) => `${key}=${value}`),
    Labels: roleLabels(request.prefix, "parent", request.hostHome),
    HostConfig: {
      // A network of its own: workers cannot reach its listeners or use up its
      // ports.
      NetworkMode: "bridge",
      RestartPolicy: restartPolicy,
      Memory: request.memoryBytes,
      MemorySwap: request.memoryBytes,
      NanoCpus: Math.round(request.cpus * 1e9),
      ...hardening(),
      // Root that may access the owner's home, chown files, and run ChromaDB as
      // another user.
      CapAdd: ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID", "KILL"],
      LogConfig: {
        Type: "json-file",
        Config: { "max-size": "10m", "max-file": "3" },
      },
      Mounts: [
        bind(request.socket, insideParent.socket),
        bind(request.hostHome, insideParent.home),
        bind(request.claudeConfig, "/config/claude", true),
        volumeMount(volumes.chromadb, "/data/chromadb"),
        volumeMount(volumes.plugins, "/data/plugins"),
        volumeMount(volumes.memorybank, "/data/memory-bank"),
        // How often workers reach their limits, see worker/limit-events.ts.
        bind(cgroups, insideParent.cgroups, true),
        ...request.roots.map((root) => bind(root, `${hostMount}${root}`, true)),
      ],
    },
  };
}
