// Gets the worker of a session: its running one, else a claimed or spawned one.

import { inspectContainer } from "../docker/docker.ts";
import { retireWorker } from "../worker/ending.ts";
import { Failure } from "../std/errors.ts";
import type { HostPath } from "../std/hostpath.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { withoutNetwork } from "../worker/workers.ts";
import { claimFor } from "../pool/client.ts";
import {
  type ProfileChoice,
  profileImage,
  readyImage,
} from "../image/profiles.ts";
import { workerImage } from "../image/recipes.ts";
import { label } from "../instance/labels.ts";
import { type CacheKind, cacheKinds } from "../instance/settings.ts";
import type { RelayUse } from "../relay/names.ts";
import { readRecord } from "../instance/record.ts";
import type { Profile } from "../project/profile.ts";
import type { Project } from "../project/project.ts";
import type { SpawnRequest } from "../worker/request.ts";
import { spawnWorker } from "../worker/spawn.ts";
import { waitFor } from "../std/wait.ts";
import { insideWorker } from "../instance/paths.ts";
import { listWorkers, type WorkerState } from "../worker/workers.ts";
import type { RepositoryConsent } from "../project/repository-consent.ts";

/** What the session's worker has to provide. */
export interface WorkerOptions {
  allowAnyPath?: boolean;
  /** Use a container with its own network, without the parent. */
  standalone?: boolean;
  /** The socket of the user's ssh-agent, to mount in the worker. */
  sshAgent?: string | undefined;
  repository?: RepositoryConsent | undefined;
  relay?: RelayUse;
  /** For a single command; if the caller does not stop the worker, the parent does. */
  once?: boolean | undefined;
  /** @default the session's saved ones, else WORKER_CACHES */
  caches?: readonly CacheKind[] | undefined;
  profile: ProfileChoice;
}

export interface SessionWorker {
  worker: Pick<WorkerState, "name" | "id">;
  start: "running" | "warm" | "cold";
}

export async function ensureSessionWorker(
  instance: Instance,
  { session, project, copyOf, profile, options: request, prepare }: {
    session: string;
    /** What is mounted as the workspace. */
    project: Project & HostPath;
    /** The user's project, if that is the session's copy of it. */
    copyOf: string | undefined;
    profile: Profile;
    options: WorkerOptions;
    /** Writes the files that a new worker needs; called after all checks have passed. */
    prepare: () => void;
  },
  log: Log,
): Promise<SessionWorker> {
  const find = async () =>
    (await listWorkers(instance)).find((worker) => worker.session === session);
  // Another process may be opening the same session.
  const waitForRunning = () =>
    waitFor(async () => {
      const worker = await find();
      return worker?.state === "running" ? worker : undefined;
    }, { for: `the worker of "${session}"`, timeoutMs: raceTimeoutMs });

  let found = await find();
  if (found?.state === "created") {
    found = await waitForRunning().catch(() => found); // nobody is starting it
  }
  if (found?.state === "running") {
    requireSameProject(instance, found, project);
    requireIsolated(instance, found);
    if (request.sshAgent) await requireSshAgent(instance, found);
    if (request.caches) await refuseCaches(instance, found, request.caches);
    if (request.profile.name) {
      await requireProfile(instance, found, profile, request.profile.build);
    }
    if ((await withoutNetwork(instance, [found])).size > 0) {
      log(
        `warning: The network of "${found.name}" has ended: the session ` +
          `cannot reach any service. Stop it, then open it again: ` +
          `claudy stop ${found.name}`,
      );
    }
    return { worker: found, start: "running" };
  }
  if (found?.state === "paused") {
    throw sessionIsPaused(session, found.name);
  }
  if (found) await retireWorker(instance, found, log);
  const image = await readyImage(instance, profile, request.profile, log);
  const spawnAs = async (name: string): Promise<SessionWorker> => {
    try {
      return await claimOrSpawn(instance, {
        directory: project.path,
        cwd: "/",
        resolved: project,
        copyOf,
        name,
        session,
        relay: request.relay,
        image: image.name,
        imageId: image.id,
        repository: request.repository,
        sshAgent: request.sshAgent,
        standalone: request.standalone ?? false,
        formerData: request.standalone ?? false,
        once: request.once ?? false,
        allowAnyPath: request.allowAnyPath ?? false,
      }, log);
    } catch (error) {
      if (!(error instanceof Failure && error.kind === "busy")) throw error;
      if (name === session && await isTakenByOtherInstance(instance, name)) {
        return await spawnAs(instance.names.session(session));
      }
      const worker = await waitForRunning().catch(() => {
        throw error; // the name belongs to another worker
      });
      return { worker, start: "running" };
    }
  };
  prepare();
  return await spawnAs(session);
}

/** Whether a container of another instance has the name: names are unique per engine. */
async function isTakenByOtherInstance(
  { docker, prefix }: Pick<Instance, "docker" | "prefix">,
  name: string,
): Promise<boolean> {
  const holder = await inspectContainer(docker, name);
  return holder !== undefined &&
    holder.Config.Labels?.[label.instance] !== prefix;
}

/**
 * Throws if the project's directory was replaced since the worker was created: the
 * worker still has the former one, and nothing can be run in it if that was removed.
 */
export function requireSameProject(
  instance: Pick<Instance, "home" | "owner">,
  { name, session }: Pick<WorkerState, "name" | "session">,
  { path, inode }: Pick<HostPath, "path" | "inode">,
): void {
  const known = readRecord(instance, name)?.project.inode;
  if (known === undefined || known === inode) return;
  throw new Failure(
    "busy",
    `The worker of "${session}" has another directory than ${path}, ` +
      "which was replaced, moved or mounted since it started",
    { hint: `Stop it, then open it again: claudy stop ${session}` },
  );
}

/**
 * Throws if an isolated worker is asked for, and it is in the shared network. The other way
 * round, nothing is risked.
 */
export function requireIsolated(
  { settings }: Pick<Instance, "settings">,
  { name, network }: Pick<WorkerState, "name" | "network">,
): void {
  if (network === "isolated" || settings.WORKER_NETWORK !== "isolated") return;
  throw new Failure("busy", `"${name}" is not isolated`, {
    hint: `Stop it, then open it again: claudy stop ${name}. ` +
      "Or use it as it is: --network shared",
  });
}

/** Throws if the agent is not mounted: a running container gets no new mounts. */
async function requireSshAgent(
  { docker }: Pick<Instance, "docker">,
  { id, name }: WorkerState,
): Promise<void> {
  const container = await inspectContainer(docker, id);
  const mounted = container?.Mounts
    .some(({ Destination }) => Destination === insideWorker.sshAgent);
  if (mounted) return;
  throw new Failure("busy", `"${name}" runs without the ssh-agent`, {
    hint: `Stop it first: claudy stop ${name}`,
  });
}

/** Throws if the worker shares package caches that were not asked for. */
async function refuseCaches(
  { docker, names }: Pick<Instance, "docker" | "names">,
  { id, name }: WorkerState,
  wanted: readonly CacheKind[],
): Promise<void> {
  const container = await inspectContainer(docker, id);
  const used = cacheKinds.filter((kind) =>
    container?.Mounts.some(({ Name }) => Name === names.cache(kind))
  );
  const others = used.filter((kind) => !wanted.includes(kind));
  if (others.length === 0) return;
  throw new Failure(
    "busy",
    `"${name}" shares package caches: ${others.join(", ")}`,
    { hint: `Stop it, then open it again: claudy stop ${name}` },
  );
}

/** Throws if the worker runs another image: a running container keeps its image. */
async function requireProfile(
  instance: Instance,
  { id, name }: WorkerState,
  profile: Profile,
  build: boolean,
): Promise<void> {
  const container = await inspectContainer(instance.docker, id);
  const accepted = [
    profileImage(instance, profile),
    // With --no-build the plain image is used while the profile is not built.
    ...(build ? [] : [workerImage(instance.settings)]),
  ];
  if (!container || accepted.includes(container.Config.Image)) return;
  throw new Failure("busy", `"${name}" uses image ${container.Config.Image}`, {
    hint: `Stop it, then choose the profile again: claudy stop ${name}`,
  });
}

/** How long to wait for another process that is starting the same worker. */
const raceTimeoutMs = 3000;

/** Claims a warm worker if the pool has a suitable one, else spawns a cold one. */
export async function claimOrSpawn(
  instance: Instance,
  request: SpawnRequest,
  log: Log,
): Promise<SessionWorker> {
  const reply = await claimFor({ ...instance, env: {} }, request);
  if (reply.start === "warm") {
    reply.notices?.forEach(log);
    return { worker: reply.worker, start: "warm" };
  }
  const worker = await spawnWorker(instance, request, log);
  return { worker, start: "cold" };
}

/** The Failure for a session whose processes do not run until someone resumes them. */
export function sessionIsPaused(session: string, worker: string): Failure {
  return new Failure("busy", `The worker of "${session}" is paused`, {
    hint: `Resume it: docker unpause ${worker}`,
  });
}
