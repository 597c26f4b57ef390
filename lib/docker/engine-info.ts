// What the engine at hand can do. All that depends on the kind of engine asks here, and
// nothing compares names of products.

import type { IncomingMessage } from "node:http";
import { release } from "node:os";
import process from "node:process";
import type Docker from "dockerode";
import * as v from "valibot";
import { defaultSocket } from "./endpoint.ts";
import { Failure } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { isAtLeast } from "../std/text.ts";
import { binarySize } from "../std/units.ts";

export interface EngineInfo {
  /** The release of the kernel of its machine; undefined if it does not say. */
  kernel: string | undefined;
  /** The engine runs as an ordinary user, who is root in its containers. */
  rootless: boolean;
  /** By default, users in containers are other users of the engine's machine. */
  remapsUsers: boolean;
  /** Their version; undefined if the engine uses none. */
  cgroups: string | undefined;
  /** Which limits of containers the engine can enforce. */
  limits: { memory: boolean; cpus: boolean; pids: boolean };
  /** Which usage it measures by container; the rest of its figures is the machine's. */
  measures: { memory: boolean; cpus: boolean; pids: boolean };
  /** Whether it makes paths of a container read-only. */
  readOnlyPaths: boolean;
  cpus: number;
  memoryBytes: number;
}

/** The fields of `docker info` that are read here; older engines and Podman lack some. */
const infoSchema = v.object({
  KernelVersion: v.exactOptional(v.string()),
  SecurityOptions: v.exactOptional(v.nullable(v.array(v.string()))),
  CgroupVersion: v.exactOptional(v.string()),
  MemoryLimit: v.exactOptional(v.boolean()),
  CpuCfsQuota: v.exactOptional(v.boolean()),
  PidsLimit: v.exactOptional(v.boolean()),
  CgroupDriver: v.exactOptional(v.string()),
  ContainerdCommit: v.exactOptional(
    v.object({ ID: v.exactOptional(v.string()) }),
  ),
  NCPU: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  MemTotal: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
});

export type Info = v.InferOutput<typeof infoSchema>;

export function describeEngine(info: Info): EngineInfo {
  const security = info.SecurityOptions ?? [];
  const rootless = security.includes("name=rootless");
  // Docker 20.10 leaves out the older version.
  const version = info.CgroupVersion ?? "1";
  // Only root can create cgroups of version 1; Podman shows their limits nevertheless.
  const hasCgroups = info.CgroupDriver !== "none" &&
    !(rootless && version === "1");
  const limits = {
    memory: hasCgroups && (info.MemoryLimit ?? true),
    cpus: hasCgroups && (info.CpuCfsQuota ?? true),
    pids: hasCgroups && (info.PidsLimit ?? true),
  };
  return {
    kernel: info.KernelVersion,
    rootless,
    remapsUsers: security.includes("name=userns"),
    cgroups: hasCgroups ? version : undefined,
    limits,
    measures: {
      memory: limits.memory,
      // Each cgroup counts its CPU time, also without a controller.
      cpus: hasCgroups,
      pids: limits.pids,
    },
    // containerd makes the container from what it is given; Podman ignores ReadonlyPaths.
    readOnlyPaths: Boolean(info.ContainerdCommit?.ID),
    cpus: info.NCPU,
    memoryBytes: info.MemTotal,
  };
}

/** What kind of engine it is, in words. */
export function kindOfEngine(
  { rootless, remapsUsers, cgroups }: EngineInfo,
  buildKit: boolean,
): string {
  return [
    ...(rootless ? ["rootless"] : []),
    ...(remapsUsers ? ["maps users"] : []),
    cgroups ? `cgroups ${cgroups}` : "no cgroups",
    buildKit ? "BuildKit" : "no BuildKit",
  ].join(", ");
}

const known = new WeakMap<Docker, Promise<EngineInfo>>();

/**
 * Describes the engine; asks it once for each connection. Throws an `engine` Failure if its
 * answer is not valid.
 */
export function engineInfo(docker: Docker): Promise<EngineInfo> {
  let info = known.get(docker);
  if (!info) {
    info = docker.info().then((answer) => describeEngine(infoOf(answer)));
    // An engine that does not answer now may answer later.
    info.catch(() => known.delete(docker));
    known.set(docker, info);
  }
  return info;
}

function infoOf(answer: unknown): Info {
  const info = v.safeParse(infoSchema, answer);
  if (info.success) return info.output;
  const [issue] = info.issues;
  throw new Failure(
    "engine",
    `Cannot use the engine: its description is not valid (${
      v.getDotPath(issue) ?? "the whole"
    }: ${issue.message})`,
    { hint: "See what it answers: docker info" },
  );
}

/** The headers of the engine's first answer. */
export async function pingEngine(
  docker: Docker,
  abortSignal?: AbortSignal,
): Promise<{ api: string | undefined; builder: string | undefined }> {
  const { headers } = await new Promise<IncomingMessage>((resolve, reject) => {
    docker.modem.dial({
      path: "/_ping",
      method: "GET",
      // dockerode's ping() gives the body alone.
      isStream: true,
      statusCodes: { 200: true },
      ...(abortSignal ? { abortSignal } : {}),
    }, (error: unknown, answer: unknown) => {
      if (error) return reject(error);
      const message = answer as IncomingMessage;
      // After its end, the connection is free for the next call.
      message.resume().once("end", () => resolve(message));
      message.once("error", reject);
    });
  });
  return {
    api: headers["api-version"] as string | undefined,
    builder: headers["builder-version"] as string | undefined,
  };
}

/** Whether the engine has BuildKit; without, buildx would need a container for each build. */
export async function hasBuildKit(docker: Docker): Promise<boolean> {
  return (await pingEngine(docker)).builder === "2";
}

/** Docker 20.10, the first release with everything that is used here. */
export const minimumApi = "1.41";

/** The last API that was tested, of Docker 28.5; later ones may lack something. */
export const knownApi = "1.51";

/** Why the engine's API cannot be used; undefined if it can. */
export function apiFailure(
  { Version, ApiVersion, MinAPIVersion }: {
    Version: string;
    ApiVersion: string;
    MinAPIVersion?: string | undefined;
  },
): Failure | undefined {
  if (!isAtLeast(ApiVersion, minimumApi)) {
    return new Failure(
      "engine",
      `Cannot use engine ${Version}: its API ${ApiVersion} is older than ${minimumApi}`,
      { hint: "Install Docker 20.10 or later." },
    );
  }
  if (MinAPIVersion && !isAtLeast(knownApi, MinAPIVersion)) {
    return new Failure(
      "engine",
      `Cannot use engine ${Version}: it requires API ${MinAPIVersion}, ` +
        `and this version of HAL-9000 has ${knownApi}`,
      { hint: "Install a newer version: claudy upgrade" },
    );
  }
  return undefined;
}

/** Whether the engine runs on another kernel, so that it may have other files. */
export function isElsewhere(
  { kernel }: Pick<EngineInfo, "kernel">,
  ownKernel = release(),
): boolean {
  return kernel !== undefined && kernel !== ownKernel;
}

/**
 * The path of the engine's socket on its own machine: that of the client if both run on
 * one kernel, and the usual one in a virtual machine.
 */
export async function engineSocket(
  docker: Docker,
  clientSocket: string,
  ownKernel = release(),
): Promise<string> {
  return isElsewhere(await engineInfo(docker), ownKernel)
    ? defaultSocket
    : clientSocket;
}

/** A user id and a group id. */
interface User {
  uid: number;
  gid: number;
}

/**
 * Who the owner of files of this machine is in containers: with a rootless engine, the
 * engine's own user is root there, and no other user can be named.
 */
export async function userInContainers<T extends User>(
  docker: Docker,
  { uid, gid }: T,
  subject: string,
): Promise<User> {
  // In the parent, owners are seen as its containers see them.
  const isThere = uid === 0;
  if (isThere || !(await engineInfo(docker)).rootless) return { uid, gid };
  if (uid === process.getuid?.()) return { uid: 0, gid: 0 };
  throw new Failure(
    "unsafe",
    `${subject} belongs to uid ${uid}, who has no rights in containers of your rootless engine`,
    { hint: "Use directories of your own, or an engine that runs as root." },
  );
}

/** Adapts a container's spec to the engine. */
export function fitSpec(
  spec: Docker.ContainerCreateOptions,
  { remapsUsers, limits, readOnlyPaths }: EngineInfo,
): Docker.ContainerCreateOptions {
  const { CpuShares, NanoCpus, Memory, MemorySwap, PidsLimit, ...host } =
    readOnlyPaths
      ? spec.HostConfig ?? {}
      : withReadOnlyMounts(spec.HostConfig ?? {});
  return {
    ...spec,
    HostConfig: {
      ...host,
      // The mounted files belong to users of the engine's machine.
      ...(remapsUsers ? { UsernsMode: "host" } : {}),
      ...(limits.cpus ? given({ CpuShares, NanoCpus }) : {}),
      ...(limits.memory ? given({ Memory, MemorySwap }) : {}),
      ...(limits.pids ? given({ PidsLimit }) : {}),
    },
  };
}

/** Mounts in place of read-only paths, except those of the engine itself. */
function withReadOnlyMounts(
  { ReadonlyPaths, ...host }: Docker.HostConfig,
): Docker.HostConfig {
  const mounts = host.Mounts ?? [];
  const parts = (ReadonlyPaths ?? []).flatMap((path) => {
    const [around] = mounts
      .filter(({ Target }) => path.startsWith(`${Target}/`))
      .sort((a, b) => b.Target.length - a.Target.length);
    return around
      ? [{
        ...around,
        Source: around.Source + path.slice(around.Target.length),
        Target: path,
        ReadOnly: true,
      }]
      : [];
  });
  return parts.length > 0 ? { ...host, Mounts: [...mounts, ...parts] } : host;
}

/** The fields that have a value. */
function given<T extends object>(fields: T): Partial<T> {
  return Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== undefined),
  ) as Partial<T>;
}

/** Why some limits have no effect, for a sentence; undefined if all have. */
export function missingLimits({ limits }: EngineInfo): string | undefined {
  const missing = [
    ...(limits.memory ? [] : ["memory"]),
    ...(limits.cpus ? [] : ["CPUs"]),
    ...(limits.pids ? [] : ["processes"]),
  ];
  if (missing.length === 0) return undefined;
  return new Intl.ListFormat("en-GB").format(missing);
}

/**
 * Says which limits of workers the engine cannot enforce, or throws an `unsafe` Failure if
 * they are required.
 */
export async function checkLimits(
  docker: Docker,
  { required, log }: { required: boolean; log: Log },
): Promise<void> {
  const missing = missingLimits(await engineInfo(docker));
  if (missing === undefined) return;
  const message = `The engine cannot limit ${missing} of containers`;
  if (required) throw new Failure("unsafe", message, { hint: limitsHint });
  log(`warning: ${message}: the worker can use up those of the machine`);
}

/**
 * Fits limits to the engine, which refuses more CPUs than it has. Those that it cannot
 * enforce are 0, which is Docker's number for no limit.
 */
export async function fitLimits<
  T extends { memoryBytes: number; cpus: number; pids?: number },
>(docker: Docker, wanted: T, log: Log): Promise<T> {
  const { limits, cpus, memoryBytes } = await engineInfo(docker);
  if (limits.cpus && wanted.cpus > cpus) {
    log(
      `The engine has ${cpus} CPUs: using ${cpus} instead of ${wanted.cpus}`,
    );
  }
  if (limits.memory && wanted.memoryBytes > memoryBytes) {
    log(
      `The engine has ${binarySize(memoryBytes)} of memory: using that ` +
        `instead of ${binarySize(wanted.memoryBytes)}`,
    );
  }
  return {
    ...wanted,
    memoryBytes: limits.memory ? Math.min(wanted.memoryBytes, memoryBytes) : 0,
    cpus: limits.cpus ? Math.min(wanted.cpus, cpus) : 0,
    ...(limits.pids || wanted.pids === undefined ? {} : { pids: 0 }),
  };
}

/** What to do about limits that have no effect. */
export const limitsHint =
  "Delegate the cgroup controllers memory, cpu and pids to the engine: " +
  "https://docs.docker.com/engine/security/rootless/tips/#limiting-resources";
