// The container spec of a worker: hardened, for one project, in the workers' network
// namespace.

import type { Docker } from "../docker/docker.ts";
import { Failure } from "../std/errors.ts";
import { label, roleLabels } from "../instance/labels.ts";
import { type GateCheck, gated } from "./gate.ts";
import type { PackageCache } from "./caches.ts";
import type { Limits } from "./limits.ts";
import type { Owner } from "../std/owned.ts";
import { bind, hardening, volumeMount } from "../instance/container-spec.ts";
import { insideWorker } from "../instance/paths.ts";
import type { WorkerSources } from "../home/worker-home.ts";
import type { WorkerMount } from "../project/mount.ts";
import { egressVariables } from "../egress/variables.ts";
import { isolatedMode } from "./network.ts";
import { apiHost } from "../relay/names.ts";
import { refuseServiceUser } from "../instance/service-users.ts";

export interface WorkerRequest {
  prefix: string;
  /** Path of HAL9000_HOME on the host. */
  home: string;
  /** The user that the worker runs as. */
  user: Owner;
  /** Path of the project; undefined for a warm worker, which gets one when claimed. */
  project?: string | undefined;
  /** The user's project, if that is a session's copy of it. */
  copyOf?: string | undefined;
  session?: string | undefined;
  image: string;
  /** Docker's network mode. */
  network: string;
  /** Whether the Anthropic API is reached by the relay. */
  relay: boolean;
  /** A seccomp profile as JSON; undefined for the engine's default. */
  seccomp: string | undefined;
  /** Null for no limits. */
  limits: Limits | null;
  /** Host paths that the engine mounts. */
  sources: WorkerSources;
  /** KEY=VALUE; visible in `docker inspect`. */
  env: string[];
  mounts: WorkerMount[];
  caches: PackageCache[];
  /** The main process; undefined for an idle worker. */
  command: string[] | undefined;
  /** Whether to allocate a terminal for the command. */
  terminal: boolean;
  /** Mounts to verify before the command runs; undefined for a warm worker. */
  gate?: WorkerGate | undefined;
  /** Whether to keep the container after it has exited. */
  keep: boolean;
  /** Digest of what a warm worker was created from. */
  inputs?: string;
}

export interface WorkerGate {
  /** Inode of the Claude home, see gated(). */
  home: string;
  checks: GateCheck[];
  /** Ports of services to wait for. */
  ports: number[];
  /** The image's entrypoint if there is a command, else empty. */
  entrypoint: string[];
}

/**
 * Returns Docker's create options for a worker. Throws an `unsafe` Failure if it would
 * run as the user of one of the instance's services.
 */
export function workerSpec(
  request: WorkerRequest,
): Docker.ContainerCreateOptions {
  const { project, user, limits, sources, relay } = request;
  refuseServiceUser(project ?? "HAL9000_HOME", user.uid);
  return {
    Image: request.image,
    User: `${user.uid}:${user.gid}`,
    WorkingDir: insideWorker.workspace,
    Env: [
      `HOME=${insideWorker.home}`,
      `CLAUDE_CONFIG_DIR=${insideWorker.claudeHome}`,
      ...(request.network === isolatedMode ? egressVariables : []),
      ...request.caches.map(({ variable }) => variable),
      ...request.env,
    ],
    ...processOf(request),
    Tty: request.terminal,
    OpenStdin: request.command !== undefined,
    StdinOnce: request.command !== undefined && !request.terminal,
    // The signal of a closed terminal: interactive shells ignore SIGTERM.
    ...(request.terminal ? { StopSignal: "SIGHUP" } : {}),
    Labels: {
      ...roleLabels(request.prefix, "worker", request.home),
      [label.born]: project === undefined ? "warm" : "cold",
      ...(project === undefined
        ? {}
        : { [label.project]: request.copyOf ?? project }),
      ...(request.session === undefined
        ? {}
        : { [label.session]: request.session }),
      ...(request.keep ? { [label.keep]: "true" } : {}),
      ...(request.inputs ? { [label.inputs]: request.inputs } : {}),
      ...(request.network === isolatedMode
        ? { [label.network]: "isolated" }
        : {}),
      ...(relay ? { [label.relay]: "true" } : {}),
    },
    HostConfig: {
      Init: true,
      NetworkMode: request.network,
      // In the shared network, it is in the hosts file.
      ...(relay && request.network === isolatedMode
        ? { ExtraHosts: [`${apiHost}:127.0.0.1`] }
        : {}),
      ...groupsFor(request.mounts),
      ...(limits === null ? {} : { ...limitsOf(limits), Ulimits: ulimits }),
      ...precedence,
      ...hardening(
        request.seccomp === undefined ? [] : [`seccomp=${request.seccomp}`],
      ),
      LogConfig: {
        Type: "json-file",
        Config: { "max-size": "10m", "max-file": "3" },
      },
      // Not Binds: those create a missing source directory, as root.
      Mounts: [
        ...(project === undefined
          ? []
          : [bind(project, insideWorker.workspace)]),
        ...(sources.claudeHome === undefined
          ? []
          : [bind(sources.claudeHome, insideWorker.claudeHome)]),
        bind(sources.claudeConfig, insideWorker.claudeConfig, true),
        bind(sources.credentials, insideWorker.credentials, true),
        {
          ...volumeMount(sources.plugins, insideWorker.plugins),
          ReadOnly: true,
        },
        bind(`${sources.accounts}/passwd`, "/etc/passwd", true),
        bind(`${sources.accounts}/group`, "/etc/group", true),
        ...(sources.netFiles === undefined
          ? []
          : netFileMounts(sources.netFiles, relay)),
        ...(sources.secrets
          ? [bind(sources.secrets, insideWorker.secrets, true)]
          : []),
        ...request.caches.map(({ volume, target }) =>
          volumeMount(volume, target)
        ),
        ...request.mounts.filter((mount) => !isReadOnlyPart(mount))
          .map(({ source, target, readOnly }) =>
            bind(source, target, readOnly)
          ),
      ],
      ...readOnlyPaths(request.mounts.filter(isReadOnlyPart)),
    },
  };
}

function groupsFor(mounts: WorkerMount[]): Docker.HostConfig {
  const groups = mounts.flatMap(({ group }) => group ?? []);
  return groups.length === 0 ? {} : { GroupAdd: groups.map(String) };
}

/** A part of another mount that is read-only, where that mount is not. */
function isReadOnlyPart({ readOnly, within }: WorkerMount): boolean {
  return readOnly && within?.path !== undefined;
}

/**
 * Not Mounts: for these, the runtime creates a missing mount point, as root. If the project
 * was replaced by a link meanwhile, it would do so in any directory of the host.
 */
function readOnlyPaths(parts: WorkerMount[]) {
  if (parts.length === 0) return {};
  const targets = parts.map(({ target }) => target);
  return { ReadonlyPaths: [...defaultReadOnlyPaths, ...targets] };
}

/** Those of the engine, which are replaced: https://github.com/moby/moby/blob/v28.5.1/oci/defaults.go */
const defaultReadOnlyPaths = ["bus", "fs", "irq", "sys", "sysrq-trigger"]
  .map((name) => `/proc/${name}`);

function processOf({ command, gate, sources }: WorkerRequest) {
  if (gate) {
    const { home, checks, ports, entrypoint } = gate;
    return gated(
      {
        target: insideWorker.claudeHome,
        inode: home,
        source: sources.claudeHome ?? "",
      },
      checks,
      command ? [...entrypoint, ...command] : idleCommand,
      { ports, announce: command === undefined },
    );
  }
  const [first = "", ...rest] = idleCommand;
  return command ? { Cmd: command } : { Entrypoint: [first], Cmd: rest };
}

/** Used instead of the image's command, which may not idle in a custom image. */
const idleCommand = ["sleep", "infinity"];

/** The kernel counts these per user id, across host and containers: mq_overview(7). */
export const ulimits = [
  { Name: "sigpending", Soft: 4096, Hard: 4096 },
  { Name: "msgqueue", Soft: 0, Hard: 0 },
];

/** Workers come after everything else on the machine, and none before another. */
export const precedence = {
  /**
   * A quarter of Docker's default, which the parent and its services have: with 4 busy
   * workers, the parent gets half of the CPUs if it needs them.
   */
  CpuShares: 256,
  /** If the memory of the machine is used up, the kernel ends a worker's process. */
  OomScoreAdj: 500,
} as const;

/** Limits as Docker options, for creating a worker and for updating a running one. */
export function limitsOf({ memoryBytes, cpus, pids }: Limits) {
  return {
    Memory: memoryBytes,
    MemorySwap: memoryBytes,
    NanoCpus: Math.round(cpus * 1e9),
    PidsLimit: pids,
  };
}

/** Mounts read-only copies over the net files that the namespace shares. */
export function netFileMounts(
  directory: string,
  relay: boolean,
): Docker.MountSettings[] {
  return netFileNames.map((name) => {
    const file = relay && name === "hosts" ? relayHosts : name;
    return bind(`${directory}/${file}`, `/etc/${name}`, true);
  });
}

/** The hosts file with the relay in it. */
export const relayHosts = "hosts.relay";

export const netFileNames = ["hosts", "resolv.conf", "hostname"] as const;

/** The caller's time zone, in the parent that of the host. */
export function timeZone(): string {
  // Intl takes 12 ms of CPU time for it, Temporal less than 1. Node 22 has none.
  const { Temporal } = globalThis as {
    Temporal?: { Now: { timeZoneId(): string } };
  };
  // Undefined for a TZ that names no zone.
  return Temporal?.Now.timeZoneId() ??
    Intl.DateTimeFormat().resolvedOptions().timeZone ?? "UTC";
}

/** Variables that a worker depends on. */
const reservedVariables = ["HOME", "PATH", "CLAUDE_CONFIG_DIR"];

/** Returns `text` if it is KEY=VALUE; throws a `usage` Failure otherwise. */
export function checkVariable(text: string): string {
  const key = /^([A-Za-z_]\w*)=/.exec(text)?.[1];
  if (key === undefined) {
    throw new Failure("usage", "--env must be KEY=VALUE", {
      hint: "For confidential values use --secret.",
    });
  }
  if (reservedVariables.includes(key)) {
    throw new Failure(
      "usage",
      `--env cannot set ${key}: the worker needs its own value`,
    );
  }
  return text;
}
