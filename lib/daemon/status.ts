// The daemon's status, from Docker and from the parent's state file.

import {
  type Docker,
  inspectContainer,
  inspectVolume,
} from "../docker/docker.ts";
import type { Preset } from "../egress/presets.ts";
import { readScope } from "../egress/store.ts";
import { versionLabel } from "../instance/labels.ts";
import type { Instance } from "../instance/instance.ts";
import type { WorkerNetwork } from "../instance/settings.ts";
import { type ParentState, readParentState } from "../instance/parent-state.ts";
import { messageOf } from "../std/errors.ts";
import { hostFault } from "./net.ts";
import type { DiskUse } from "../worker/disk-use.ts";
import {
  type PromisedMemory,
  promisedMemory,
} from "../worker/promised-memory.ts";
import { liveWorkers } from "../worker/workers.ts";

export interface DaemonStatus {
  parent: "running" | "paused" | "stopped" | "absent";
  health: string | null;
  startedAt: string | null;
  uptimeMs: number | null;
  image: string | null;
  /** The version of its image; null if that has no label. */
  version: string | null;
  /**
   * Digest of its sources; null before it has written its state, or if it is too
   * old.
   */
  build: string | null;
  /** How long the parent's start took. */
  readyMs: number | null;
  /** Whether workers can reach ChromaDB, as the parent last checked. */
  chromadb: boolean | null;
  /** Why they cannot. */
  chromadbFault: string | null;
  /** The parent's WORKER_NETWORK; null if it does not run. */
  network: WorkerNetwork | null;
  phases: ParentState["phases"];
  children: ParentState["children"];
  /** The egress policy of isolated workers; null if it cannot be read. */
  egress: { preset: Preset; from: string; rules: number } | null;
  workers: number;
  /** The sum of the workers' memory limits, and what the engine has. */
  memory: PromisedMemory;
  /** Workers that use more disk space than WORKER_DISK, as the parent last measured. */
  overDisk: DiskUse[];
  volumes: string[];
  published: string[];
  /** Whether workers can reach the host; null if there is no network. */
  allowsHost: boolean | null;
  /** Why they can. */
  hostFault: string | null;
}

export async function daemonStatus(instance: Instance): Promise<DaemonStatus> {
  const { docker, names } = instance;
  const [parent, net, workers, memory, volumes] = await Promise.all([
    inspectContainer(docker, names.parent),
    inspectContainer(docker, names.net),
    liveWorkers(instance),
    promisedMemory(instance),
    Promise.all(
      Object.values(names.volumes).map((name) => inspectVolume(docker, name)),
    ),
  ]);
  const fault = net?.State.Running && !net.State.Paused
    ? await hostFault(instance, net).catch(messageOf)
    : undefined;
  const running = parent?.State.Running ? parent.State : undefined;
  const saved = readParentState(instance);
  const own = running && saved?.container === parent?.Id ? saved : undefined;
  const health = running?.Health?.Status ?? null;
  return {
    allowsHost: net?.State.Running ? fault !== undefined : null,
    hostFault: fault ?? null,
    parent: stateOf(parent),
    health,
    startedAt: running?.StartedAt ?? null,
    uptimeMs: running ? Date.now() - Date.parse(running.StartedAt) : null,
    image: parent?.Config.Image ?? null,
    version: parent?.Config.Labels?.[versionLabel] ?? null,
    build: own?.build ?? null,
    readyMs: own?.readyMs ?? null,
    chromadb: own ? own.chromadbFault === null : null,
    chromadbFault: own?.chromadbFault ?? null,
    network: own?.network ?? null,
    phases: own?.phases ?? [],
    children: own?.children ?? [],
    egress: egressOf(instance),
    workers: workers.length,
    memory,
    overDisk: own?.overDisk ?? [],
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

/** The policy of the instance, without the rules of projects and sessions. */
function egressOf(instance: Instance): DaemonStatus["egress"] {
  try {
    const { preset, rules } = readScope(instance, {});
    return {
      preset: preset ?? instance.settings.EGRESS_PRESET,
      from: preset ? "the instance" : "EGRESS_PRESET",
      rules: rules.length,
    };
  } catch {
    return null;
  }
}

function stateOf(
  parent: Docker.ContainerInspectInfo | undefined,
): DaemonStatus["parent"] {
  if (!parent) return "absent";
  if (parent.State.Paused) return "paused";
  return parent.State.Running ? "running" : "stopped";
}
