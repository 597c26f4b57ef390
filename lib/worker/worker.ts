// A worker: one container for one project, hardened, in the parent's network
// namespace.

import type { Readable } from "node:stream";
import { linkArchive } from "../std/archive.ts";
import {
  createContainer,
  type Docker,
  inspectContainer,
  inspectImage,
  removeContainer,
} from "../docker/docker.ts";
import { engineFailure, statusOf } from "../docker/docker-errors.ts";
import { Failure } from "../std/errors.ts";
import { type instanceNames, label, roleLabels } from "../instance/labels.ts";
import { type GateCheck, gated, gatePassed } from "./gate.ts";
import type { Owner } from "../std/owned.ts";
import { firstLine, firstLineIn } from "../docker/streams.ts";
import { hardening } from "../instance/container-spec.ts";
import { insideWorker } from "../instance/paths.ts";
import type { WorkerSources } from "../home/worker-home.ts";
import type { WorkerMount } from "../project/mount.ts";
import { refuseServiceUser } from "../instance/service-users.ts";
import { waitFor } from "../std/wait.ts";

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

/** Docker's own rule, but for a letter first: `-n 007` would arrive as 7. */
const namePattern = /^[a-zA-Z][a-zA-Z0-9_.-]{1,62}$/;

/** Throws a `usage` Failure for a name that is not one, or the instance's own. */
export function checkWorkerName(
  name: unknown,
  names: ReturnType<typeof instanceNames>,
): string {
  if (typeof name === "string" && namePattern.test(name)) {
    const own = [names.net, names.parent, names.mounter, names.forwarder]
      .includes(name) ||
      isMadeUp(name, names);
    if (!own) return name;
    throw new Failure("usage", `"${name}" is not for a worker`, {
      hint: "Names like it are the instance's own; choose another.",
    });
  }
  throw new Failure("usage", `"${name}" is not a name for a worker`, {
    hint: "A letter, then letters, digits, dots, dashes and underscores; " +
      "2 to 63 characters.",
  });
}

/** Whether a worker was given this name for want of one. */
function isMadeUp(
  name: string,
  names: ReturnType<typeof instanceNames>,
): boolean {
  const id = idIn(name);
  return [names.worker(id), names.warm(id)].includes(name);
}

/** Whether a name is that of a warm worker which nobody has claimed. */
export function isWarmName(
  name: string,
  names: ReturnType<typeof instanceNames>,
): boolean {
  return names.warm(idIn(name)) === name;
}

function idIn(name: string): string {
  return /[0-9a-f]{8}$/.exec(name)?.[0] ?? "";
}

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

function bind(
  source: string,
  target: string,
  readOnly = false,
): Docker.MountSettings {
  return { Type: "bind", Source: source, Target: target, ReadOnly: readOnly };
}

/** A volume, as it is: Docker would copy the image's directory into a new one. */
export function volumeMount(
  name: string,
  target: string,
): Docker.MountSettings {
  return {
    Type: "volume",
    Source: name,
    Target: target,
    VolumeOptions: {
      NoCopy: true,
      Labels: {},
      DriverConfig: { Name: "", Options: {} },
    },
  };
}

/**
 * Creates a worker that is not started; gives its id. With `link` the worker has
 * a link to the project at that path.
 */
export async function createWorker(
  docker: Docker,
  name: string,
  spec: Docker.ContainerCreateOptions,
  link?: string,
): Promise<string> {
  let container: Docker.Container;
  try {
    container = await createContainer(docker, name, spec);
  } catch (error) {
    throw await creationFailure(docker, name, error, spec);
  }
  if (link === undefined) return container.id;
  try {
    const archive = linkArchive(link, insideWorker.workspace);
    await container.putArchive(archive, { path: "/" });
    return container.id;
  } catch (error) {
    await removeContainer(docker, container.id);
    throw engineFailure(error, `Cannot lay ${link} in worker "${name}"`);
  }
}

/**
 * Starts a worker that was created, or leaves nothing of it behind. An idle one
 * has passed its gate by then; one with a command ends with the gate's refusal.
 */
export async function startWorker(
  docker: Docker,
  name: string,
  id: string,
  { announces = false } = {},
): Promise<void> {
  const subject = `Cannot start worker "${name}"`;
  try {
    const container = docker.getContainer(id);
    await container.start();
    if (announces) await untilPassed(container, subject);
  } catch (error) {
    await removeContainer(docker, id);
    throw error instanceof Failure ? error : engineFailure(error, subject);
  }
}

const gateMs = 15_000;

async function untilPassed(
  container: Docker.Container,
  subject: string,
): Promise<void> {
  const output = { stdout: true, stderr: true } as const;
  const log = await container.logs({
    ...output,
    follow: true,
    abortSignal: AbortSignal.timeout(gateMs),
  }) as unknown as Readable;
  // What is followed may end before the last that was written.
  const line = await firstLine(log) ||
    firstLineIn(await container.logs({ ...output, follow: false }));
  if (line === gatePassed) return;
  const reason = line.replace(/^error: /, "") || "it ended at once";
  throw new Failure("unsafe", `${subject}: ${reason}`, {
    hint: "Look at what is there now, then try again.",
  });
}

async function creationFailure(
  docker: Docker,
  name: string,
  error: unknown,
  spec: Docker.ContainerCreateOptions,
): Promise<Failure> {
  const subject = `Cannot start worker "${name}"`;
  if (statusOf(error) === 409) {
    const holder = await untilKnown(docker, name);
    const own = spec.Labels?.[label.instance];
    const other = holder?.Config.Labels?.[label.instance];
    const taken = `${subject}: the name is taken`;
    if (!holder || other === own) {
      return new Failure("busy", taken, {
        cause: error,
        hint: "Choose another, or stop who has it: coordinator stop NAME",
      });
    }
    const by = other ? `a worker of instance "${other}"` : "another container";
    return new Failure("busy", `${taken} by ${by}`, {
      cause: error,
      hint:
        "Choose another --name: an engine gives each name to one container.",
    });
  }
  const image = spec.Image ?? "";
  if (statusOf(error) === 404 && !await inspectImage(docker, image)) {
    return new Failure("notFound", `${subject}: there is no image ${image}`, {
      cause: error,
      hint: "Build ours with 'make images'; --image takes a full name, as " +
        "docker images shows it.",
    });
  }
  return engineFailure(error, subject);
}

/**
 * The engine gives a name away before it knows the container that got it: only
 * after that can it be told whose home is in use.
 */
async function untilKnown(
  docker: Docker,
  name: string,
): Promise<Docker.ContainerInspectInfo | undefined> {
  const enough = Date.now() + 5000;
  const found = await waitFor(
    async () => await inspectContainer(docker, name) ?? Date.now() > enough,
    { for: `the holder of "${name}"`, timeoutMs: 10_000 },
  );
  return found === true ? undefined : found;
}
