// What a worker is: one container for one project, hardened, in the parent's network
// namespace.

import type { Docker } from "../docker/docker.ts";
import { Failure } from "../std/errors.ts";
import { label, roleLabels } from "../instance/labels.ts";
import { type GateCheck, gated } from "./gate.ts";
import type { Owner } from "../std/owned.ts";
import { bind, hardening, volumeMount } from "../instance/container-spec.ts";
import { insideWorker } from "../instance/paths.ts";
import type { WorkerSources } from "../home/worker-home.ts";
import type { WorkerMount } from "../project/mount.ts";
import { refuseServiceUser } from "../instance/service-users.ts";

export interface Limits {
  memoryBytes: number;
  cpus: number;
  pids: number;
}

export interface WorkerRequest {
  prefix: string;
  /** HAL9000_HOME, as the engine knows it. */
  home: string;
  /** Whom it runs as. */
  user: Owner;
  /** What it works on; undefined for a warm one, which is given that later. */
  project?: string | undefined;
  session?: string | undefined;
  image: string;
  /** Docker's network mode: the namespace to live in. */
  network: string;
  /** A seccomp profile as JSON; undefined for the engine's own. */
  seccomp: string | undefined;
  /** Null for none. */
  limits: Limits | null;
  /** Host paths that the engine mounts. */
  sources: WorkerSources;
  /** KEY=VALUE, for everyone to see who may inspect the worker. */
  env: string[];
  mounts: WorkerMount[];
  /** In the place of idling: what the worker lives and ends with. */
  command: string[] | undefined;
  /** Whether the command is given a terminal. */
  terminal: boolean;
  /** What is compared before the command runs; nothing in a warm one. */
  gate?: WorkerGate | undefined;
  /** Whether the worker stays when it has ended. */
  keep: boolean;
  /** Of a warm one: what it was made from, as a digest. */
  inputs?: string;
}

export interface WorkerGate {
  /** Inode of the Claude home, see gated(). */
  home: string;
  checks: GateCheck[];
  /** The image's own entrypoint, where there is a command for it. */
  entrypoint: string[];
}

/**
 * The container that Docker is asked for; nothing is done yet. Throws an `unsafe`
 * Failure where it would run as a service of ours does.
 */
export function workerSpec(
  request: WorkerRequest,
): Docker.ContainerCreateOptions {
  const { project, user, limits, sources } = request;
  refuseServiceUser(project ?? "HAL9000_HOME", user.uid);
  return {
    Image: request.image,
    User: `${user.uid}:${user.gid}`,
    WorkingDir: insideWorker.workspace,
    Env: [
      `HOME=${insideWorker.home}`,
      `CLAUDE_CONFIG_DIR=${insideWorker.claudeHome}`,
      ...request.env,
    ],
    ...processOf(request),
    Tty: request.terminal,
    OpenStdin: request.command !== undefined,
    StdinOnce: request.command !== undefined && !request.terminal,
    // What a closed terminal would send: shells that talk to one ignore SIGTERM.
    ...(request.terminal ? { StopSignal: "SIGHUP" } : {}),
    Labels: {
      ...roleLabels(request.prefix, "worker", request.home),
      [label.born]: project === undefined ? "warm" : "cold",
      ...(project === undefined ? {} : { [label.project]: project }),
      ...(request.session === undefined
        ? {}
        : { [label.session]: request.session }),
      ...(request.keep ? { [label.keep]: "true" } : {}),
      ...(request.inputs ? { [label.inputs]: request.inputs } : {}),
    },
    HostConfig: {
      Init: true,
      NetworkMode: request.network,
      ...(limits === null ? {} : { ...limitsOf(limits), Ulimits: ulimits }),
      ...hardening(
        request.seccomp === undefined ? [] : [`seccomp=${request.seccomp}`],
      ),
      LogConfig: {
        Type: "json-file",
        Config: { "max-size": "10m", "max-file": "3" },
      },
      // Not Binds: those make a missing source, as root.
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
          : netFileMounts(sources.netFiles)),
        ...(sources.secrets
          ? [bind(sources.secrets, insideWorker.secrets, true)]
          : []),
        ...request.mounts.map(({ source, target, readOnly }) =>
          bind(source, target, readOnly)
        ),
      ],
    },
  };
}

function processOf({ command, gate, sources }: WorkerRequest) {
  if (gate) {
    const { home, checks, entrypoint } = gate;
    return gated(
      {
        target: insideWorker.claudeHome,
        inode: home,
        source: sources.claudeHome ?? "",
      },
      checks,
      command ? [...entrypoint, ...command] : idle,
      { announce: command === undefined },
    );
  }
  const [first = "", ...rest] = idle;
  return command ? { Cmd: command } : { Entrypoint: [first], Cmd: rest };
}

/** Not the image's command: one of somebody's own may start what does not idle. */
const idle = ["sleep", "infinity"];

/** Counted for a user, and so with the host's user of the same id, see mq_overview(7). */
export const ulimits = [
  { Name: "sigpending", Soft: 4096, Hard: 4096 },
  { Name: "msgqueue", Soft: 0, Hard: 0 },
];

/** Limits in Docker's words, for a worker that is made and for one that runs. */
export function limitsOf({ memoryBytes, cpus, pids }: Limits) {
  return {
    Memory: memoryBytes,
    MemorySwap: memoryBytes,
    NanoCpus: Math.round(cpus * 1e9),
    PidsLimit: pids,
  };
}

/** The files of a shared namespace, which are the net container's otherwise. */
export function netFileMounts(directory: string): Docker.MountSettings[] {
  return netFileNames.map((name) =>
    bind(`${directory}/${name}`, `/etc/${name}`, true)
  );
}

export const netFileNames = ["hosts", "resolv.conf", "hostname"] as const;

/** Variables that a worker would not work without as they are. */
const ownVariables = ["HOME", "PATH", "CLAUDE_CONFIG_DIR"];

/** Gives KEY=VALUE back; throws a `usage` Failure for what is not that. */
export function checkVariable(text: string): string {
  const key = /^([A-Za-z_]\w*)=/.exec(text)?.[1];
  if (key === undefined) {
    throw new Failure("usage", "--env must be KEY=VALUE", {
      hint: "For what others must not see there is --secret.",
    });
  }
  if (ownVariables.includes(key)) {
    throw new Failure(
      "usage",
      `--env cannot set ${key}: it is the worker's own`,
    );
  }
  return text;
}
