// The worker of a session: the one that it has, else one that is claimed or spawned.

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
import type { Profile } from "../project/profile.ts";
import type { Project } from "../project/project.ts";
import { type SpawnRequest, spawnWorker } from "../worker/spawn.ts";
import { waitFor } from "../std/wait.ts";
import { insideWorker } from "../instance/paths.ts";
import { listWorkers, type WorkerState } from "../worker/workers.ts";
import type { RepositoryConsent } from "../project/repository-consent.ts";

/** What a session wants of its worker. */
export interface WorkerOptions {
  allowAnyPath?: boolean;
  /** In a container with a network of its own, without a parent. */
  standalone?: boolean;
  /** The socket of an ssh-agent that the session may use. */
  sshAgent?: string | undefined;
  repository?: RepositoryConsent | undefined;
  profile: ProfileChoice;
}

export interface SessionWorker {
  worker: Pick<WorkerState, "name" | "id">;
  start: "running" | "warm" | "cold";
}

export async function workerOf(
  instance: Instance,
  { session, project, profile, options: request, prepare }: {
    session: string;
    project: Project & HostPath;
    profile: Profile;
    options: WorkerOptions;
    /** Lays out what a new worker needs, once nothing else can refuse it. */
    prepare: () => void;
  },
  log: Log,
): Promise<SessionWorker> {
  const find = async () =>
    (await listWorkers(instance)).find((worker) => worker.session === session);
  // Of another who opens the same session at this moment.
  const started = () =>
    waitFor(async () => {
      const worker = await find();
      return worker?.state === "running" ? worker : undefined;
    }, { for: `the worker of "${session}"`, timeoutMs: raceMs });

  let found = await find();
  if (found?.state === "created") {
    found = await started().catch(() => found); // else it never will be
  }
  if (found?.state === "running") {
    if (request.sshAgent) await checkAgent(instance, found);
    if (request.profile.name) {
      await checkProfileOf(instance, found, profile, request.profile.build);
    }
    if ((await withoutNetwork(instance, [found])).size > 0) {
      log(
        `warning: The network of "${found.name}" has ended: the session ` +
          `reaches no service. Stop it and open it again: claudy stop ${found.name}`,
      );
    }
    return { worker: found, start: "running" };
  }
  if (found?.state === "paused") {
    throw new Failure("busy", `The worker of "${session}" is paused`, {
      hint: `Resume it: docker unpause ${found.name}`,
    });
  }
  if (found) await retireWorker(instance, found, log);
  const image = await readyImage(instance, profile, request.profile, log);
  const spawnAs = async (name: string): Promise<SessionWorker> => {
    try {
      return await claimOrSpawn(instance, {
        directory: project.path,
        cwd: "/",
        resolved: project,
        name,
        session,
        image: image.name,
        imageId: image.id,
        repository: request.repository,
        sshAgent: request.sshAgent,
        standalone: request.standalone ?? false,
        formerData: request.standalone ?? false,
        allowAnyPath: request.allowAnyPath ?? false,
      }, log);
    } catch (error) {
      if (!(error instanceof Failure && error.kind === "busy")) throw error;
      if (name === session && await isElsewhere(instance, name)) {
        return await spawnAs(instance.names.session(session));
      }
      const worker = await started().catch(() => {
        throw error; // somebody else's worker has the name
      });
      return { worker, start: "running" };
    }
  };
  prepare();
  return await spawnAs(session);
}

/** Whether a container of another instance has the name: the engine gives it once. */
async function isElsewhere(
  { docker, prefix }: Instance,
  name: string,
): Promise<boolean> {
  const holder = await inspectContainer(docker, name);
  return holder !== undefined &&
    holder.Config.Labels?.[label.instance] !== prefix;
}

/** Mounts cannot be added to a worker that runs. */
async function checkAgent(
  { docker }: Instance,
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

/** An image cannot be changed in a worker that runs. */
async function checkProfileOf(
  instance: Instance,
  { id, name }: WorkerState,
  profile: Profile,
  build: boolean,
): Promise<void> {
  const container = await inspectContainer(instance.docker, id);
  const wanted = [
    profileImage(instance, profile),
    // Where it was not built, this had to do.
    ...(build ? [] : [workerImage(instance.settings)]),
  ];
  if (!container || wanted.includes(container.Config.Image)) return;
  throw new Failure("busy", `"${name}" runs on ${container.Config.Image}`, {
    hint: `Stop it first, then choose again: claudy stop ${name}`,
  });
}

/** How long another may take to start what both want. */
const raceMs = 3000;

/** A warm worker where the pool has one that fits, else a cold one. */
export async function claimOrSpawn(
  instance: Instance,
  request: SpawnRequest,
  log: Log,
): Promise<SessionWorker> {
  const { home, settings } = instance;
  const reply = await claimFor({ home, settings, env: {} }, request);
  if (reply.start === "warm") {
    reply.notices?.forEach(log);
    return { worker: reply.worker, start: "warm" };
  }
  const worker = await spawnWorker(instance, request, log);
  return { worker, start: "cold" };
}
