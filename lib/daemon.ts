// The net container and the parent: what they are, and how they come and go.

import {
  createContainer,
  type Docker,
  engineFailure,
  inspectContainer,
  inspectImage,
  inspectVolume,
  removeContainer,
  statusOf,
} from "./docker.ts";
import { Failure } from "./errors.ts";
import { hostMount, type Instance } from "./instance.ts";
import { label, type Role, roleLabels } from "./labels.ts";
import type { Log } from "./log.ts";
import {
  forgetParentState,
  type ParentState,
  readParentState,
} from "./parent-state.ts";
import { ensureStorage } from "./volumes.ts";
import { waitFor } from "./wait.ts";
import { listWorkers } from "./workers.ts";

export interface DaemonStatus {
  parent: "running" | "stopped" | "absent";
  health: string | null;
  startedAt: string | null;
  uptimeMs: number | null;
  image: string | null;
  /** Whether the health check found ChromaDB; null while it has not looked. */
  chromadb: boolean | null;
  phases: ParentState["phases"];
  children: ParentState["children"];
  workers: number;
  volumes: string[];
  published: string[];
}

/** Settings that the parent is told, where the environment set them. */
const passedOn = [
  "HAL9000_IMAGE_REPO",
  "WORKER_IMAGE",
  "WORKER_MEMORY",
  "WORKER_CPUS",
  "WORKER_PIDS_LIMIT",
  "CHROMADB_PORT",
  "ENABLE_POOL_MANAGER",
  "MIN_WARM_WORKERS",
  "MAX_WARM_WORKERS",
  "IDLE_TIMEOUT",
  "CHECK_INTERVAL",
  "SKIP_IMAGE_PULL",
  "LAZY_IMAGE_PULL",
] as const;

/** A port of the namespace that is reached from outside. */
export interface PublishedPort {
  address: string;
  hostPort: string;
  containerPort: string;
}

/**
 * Parses [ADDRESS:]HOST:CONTAINER; the address is the loopback one where it is
 * left out. Throws a `usage` Failure.
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

/** The pause container that owns the namespace. */
export function netSpec(
  prefix: string,
  image: string,
  published: PublishedPort[],
): Docker.ContainerCreateOptions {
  const ports = published.map(({ containerPort }) => `${containerPort}/tcp`);
  return {
    Image: image,
    Hostname: prefix,
    Labels: roleLabels(prefix, "net"),
    ExposedPorts: Object.fromEntries(ports.map((port) => [port, {}])),
    HostConfig: {
      RestartPolicy: { Name: "unless-stopped" },
      PortBindings: Object.fromEntries(
        published.map(({ address, hostPort }, index) => [
          ports[index],
          [{ HostIp: address, HostPort: hostPort }],
        ]),
      ),
      ReadonlyRootfs: true,
      CapDrop: ["ALL"],
      SecurityOpt: ["no-new-privileges"],
      Memory: 32 * 1024 ** 2,
      PidsLimit: 8,
    },
  };
}

export interface ParentRequest {
  prefix: string;
  image: string;
  /** Id of the net container. */
  net: string;
  hostHome: string;
  socket: string;
  roots: string[];
  volumes: { chromadb: string; plugins: string; memorybank: string };
  claudeConfig: string;
  memoryBytes: number;
  cpus: number;
  env: Record<string, string>;
}

/** Where the parent's image expects what is mounted into it. */
const inside = {
  home: "/root/.hal9000",
  socket: "/var/run/docker.sock",
} as const;

export function parentSpec(
  request: ParentRequest,
): Docker.ContainerCreateOptions {
  const { volumes } = request;
  return {
    Image: request.image,
    Env: Object.entries({
      HAL9000_PREFIX: request.prefix,
      HAL9000_HOME: inside.home,
      ...request.env,
    }).map(([key, value]) => `${key}=${value}`),
    Labels: roleLabels(request.prefix, "parent"),
    HostConfig: {
      NetworkMode: `container:${request.net}`,
      RestartPolicy: { Name: "unless-stopped" },
      Memory: request.memoryBytes,
      MemorySwap: request.memoryBytes,
      NanoCpus: Math.round(request.cpus * 1e9),
      CapDrop: ["ALL"],
      // Root that may use the home of its owner and leave things to them.
      CapAdd: ["CHOWN", "DAC_OVERRIDE", "FOWNER"],
      SecurityOpt: ["no-new-privileges"],
      LogConfig: {
        Type: "json-file",
        Config: { "max-size": "10m", "max-file": "3" },
      },
      Mounts: [
        { Type: "bind", Source: request.socket, Target: inside.socket },
        { Type: "bind", Source: request.hostHome, Target: inside.home },
        {
          Type: "bind",
          Source: request.claudeConfig,
          Target: "/config/claude",
          ReadOnly: true,
        },
        volume(volumes.chromadb, "/data/chromadb"),
        volume(volumes.plugins, "/data/plugins"),
        volume(volumes.memorybank, "/data/memory-bank"),
        ...request.roots.map((root) => ({
          Type: "bind" as const,
          Source: root,
          Target: `${hostMount}${root}`,
          ReadOnly: true,
        })),
      ],
    },
  };
}

function volume(name: string, target: string): Docker.MountSettings {
  return {
    Type: "volume",
    Source: name,
    Target: target,
    // Else Docker gives the volume the owner and mode of the image's directory,
    // and the memory bank is its owner's.
    VolumeOptions: {
      NoCopy: true,
      Labels: {},
      DriverConfig: { Name: "", Options: {} },
    },
  };
}

/**
 * Brings up net, then the parent, and waits until it is ready. Mends what an
 * engine restart left down. Twice changes nothing.
 */
export async function startDaemon(
  instance: Instance,
  env: NodeJS.ProcessEnv,
  log: Log,
  published: PublishedPort[] = [],
): Promise<ParentState> {
  refuseInside(instance);
  const images = await presentImages(instance);
  await ensureStorage(instance);
  const net = await ensureNet(instance, images.net, published);
  await ensureParent(instance, env, net, images.parent, log);
  return await waitUntilReady(instance);
}

/** Removes the parent; net too, unless workers live in it. */
export async function stopDaemon(
  instance: Instance,
  log: Log,
): Promise<void> {
  const { docker, names } = instance;
  refuseInside(instance);
  await stopParent(instance);
  const live = await liveWorkers(instance);
  if (live.length === 0) {
    await ownContainer(instance, names.net, "net");
    await removeContainer(docker, names.net);
  } else {
    log(`Workers that go on running: ${live.join(", ")}`);
  }
}

/** A new parent from the current image; workers and their network stay. */
export async function restartDaemon(
  instance: Instance,
  env: NodeJS.ProcessEnv,
  log: Log,
  published: PublishedPort[] = [],
): Promise<ParentState> {
  refuseInside(instance);
  await stopParent(instance);
  return await startDaemon(instance, env, log, published);
}

export async function daemonStatus(instance: Instance): Promise<DaemonStatus> {
  const { docker, names } = instance;
  const [parent, net, workers, volumes] = await Promise.all([
    inspectContainer(docker, names.parent),
    inspectContainer(docker, names.net),
    liveWorkers(instance),
    Promise.all(
      Object.values(names.volumes).map((name) => inspectVolume(docker, name)),
    ),
  ]);
  const running = parent?.State.Running ? parent.State : undefined;
  const said = readParentState(instance);
  const own = running && said?.container === parent?.Id ? said : undefined;
  const health = running?.Health?.Status ?? null;
  return {
    parent: parent === undefined ? "absent" : running ? "running" : "stopped",
    health,
    startedAt: running?.StartedAt ?? null,
    uptimeMs: running ? Date.now() - Date.parse(running.StartedAt) : null,
    image: parent?.Config.Image ?? null,
    chromadb: health === "starting" || health === null
      ? null
      : health === "healthy",
    phases: own?.phases ?? [],
    children: own?.children ?? [],
    workers: workers.length,
    volumes: volumes.flatMap((volume) => volume?.Name ?? []),
    published: Object.entries(
      (net?.HostConfig.PortBindings ?? {}) as Docker.PortMap,
    ).flatMap(([port, bindings]) =>
      (bindings ?? []).map(({ HostIp, HostPort }) =>
        `${HostIp}:${HostPort} -> ${port}`
      )
    ),
  };
}

/** The parent would end with its own container, half-way. */
function refuseInside({ self }: Instance): void {
  if (!self) return;
  throw new Failure("usage", "The parent cannot start or stop itself", {
    hint: "Run this on the host.",
  });
}

async function presentImages(
  { docker, settings }: Instance,
): Promise<{ net: string; parent: string }> {
  const names = {
    net: `${settings.HAL9000_IMAGE_REPO}:net`,
    parent: `${settings.HAL9000_IMAGE_REPO}:parent`,
  };
  for (const name of Object.values(names)) {
    if (!await inspectImage(docker, name)) {
      throw new Failure("notFound", `There is no image ${name}`, {
        hint: "Build the images with 'make images'.",
      });
    }
  }
  return names;
}

async function ensureNet(
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
    await removeContainer(docker, names.net);
    present = undefined;
  }
  if (!present) await createOnce(docker, names.net, spec);
  if (!present?.State.Running) await start(docker, names.net);
  return await docker.getContainer(names.net).inspect();
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

/** Names of the workers that run. */
export async function liveWorkers(instance: Instance): Promise<string[]> {
  return (await listWorkers(instance))
    .filter(({ state }) => state === "running")
    .map(({ name }) => name);
}

async function ensureParent(
  instance: Instance,
  env: NodeJS.ProcessEnv,
  net: Docker.ContainerInspectInfo,
  image: string,
  log: Log,
): Promise<void> {
  const { docker, names, settings, hostHome } = instance;
  const wanted = await docker.getImage(image).inspect();
  let present = await ownContainer(instance, names.parent, "parent");
  const home = present?.Mounts.find(({ Destination }) =>
    Destination === inside.home
  )?.Source;
  if (home !== undefined && home !== hostHome.home) {
    throw new Failure("busy", `The parent runs with another home: ${home}`, {
      hint:
        "Set HAL9000_HOME to that, or give this one another HAL9000_PREFIX.",
    });
  }
  if (
    present && (present.Image !== wanted.Id ||
      present.HostConfig.NetworkMode !== `container:${net.Id}`)
  ) {
    log("Replacing the parent: its image or its network is a former one");
    await stopParent(instance);
    present = undefined;
  }
  if (!present) {
    await createOnce(
      docker,
      names.parent,
      parentSpec({
        prefix: instance.prefix,
        image,
        net: net.Id,
        hostHome: hostHome.home,
        socket: instance.socket,
        roots: settings.HAL9000_PROJECT_ROOTS,
        volumes: names.volumes,
        claudeConfig: hostHome.claudeConfig,
        memoryBytes: settings.PARENT_MEMORY,
        cpus: settings.PARENT_CPUS,
        env: Object.fromEntries(passedOn.flatMap((key) => {
          const value = env[key];
          return value ? [[key, value]] : [];
        })),
      }),
    );
  }
  if (!present?.State.Running) {
    forgetParentState(instance);
    await start(docker, names.parent);
    return;
  }
  const reason = restartReason(instance, present, net);
  if (reason === undefined) return;
  log(`Restarting the parent: ${reason}`);
  forgetParentState(instance);
  await docker.getContainer(names.parent).restart({ t: 5 });
}

async function stopParent(instance: Instance): Promise<void> {
  const { docker, names } = instance;
  if (!await ownContainer(instance, names.parent, "parent")) return;
  try {
    await docker.getContainer(names.parent).stop({ t: 10 });
  } catch (error) {
    // 304: stopped already; 404: gone in between.
    if (![304, 404].includes(statusOf(error) ?? 0)) {
      throw engineFailure(error, "Cannot stop the parent");
    }
  }
  await removeContainer(docker, names.parent);
}

/**
 * The instance's container of this name, undefined where there is none. Throws
 * a `busy` Failure where another has the name: it is not ours to touch.
 */
async function ownContainer(
  { docker, prefix }: Instance,
  name: string,
  role: Role,
): Promise<Docker.ContainerInspectInfo | undefined> {
  const present = await inspectContainer(docker, name);
  const labels = present?.Config.Labels;
  const own = labels?.[label.instance] === prefix &&
    labels[label.role] === role;
  if (!present || own) return present;
  throw new Failure("busy", `Container "${name}" is not this instance's`, {
    hint: "Rename it, or set another HAL9000_PREFIX.",
  });
}

/** A parent that was started this long ago has said so. */
const firstWordMs = 10_000;

/** Why a parent that runs is of no use, undefined where it is. */
function restartReason(
  instance: Instance,
  parent: Docker.ContainerInspectInfo,
  net: Docker.ContainerInspectInfo,
): string | undefined {
  if (parent.State.StartedAt < net.State.StartedAt) {
    // The namespace it was started in is gone; only loopback is left to it.
    return "its network was started after it";
  }
  const silent = readParentState(instance)?.container !== parent.Id;
  const age = Date.now() - Date.parse(parent.State.StartedAt);
  return silent && age > firstWordMs
    ? "what it says of itself cannot be read"
    : undefined;
}

/** Creates a container unless another command was faster. */
async function createOnce(
  docker: Docker,
  name: string,
  spec: Docker.ContainerCreateOptions,
): Promise<void> {
  try {
    await createContainer(docker, name, spec);
  } catch (error) {
    if (statusOf(error) !== 409) {
      throw engineFailure(error, `Cannot create ${name}`);
    }
  }
}

async function start(docker: Docker, name: string): Promise<void> {
  try {
    await docker.getContainer(name).start();
  } catch (error) {
    if (statusOf(error) !== 304) {
      throw engineFailure(error, `Cannot start ${name}`);
    }
  }
}

async function waitUntilReady(instance: Instance): Promise<ParentState> {
  const { docker, names } = instance;
  return await waitFor(async () => {
    const state = readParentState(instance);
    const parent = await docker.getContainer(names.parent).inspect();
    if (!parent.State.Running) {
      throw new Failure("failed", `${names.parent} ended as it started`, {
        hint: `See why: docker logs ${names.parent}`,
      });
    }
    return state?.ready && state.container === parent.Id ? state : undefined;
  }, {
    for: `${names.parent} to be ready`,
    timeoutMs: 60_000,
    hint: `See why: docker logs ${names.parent}`,
  });
}
