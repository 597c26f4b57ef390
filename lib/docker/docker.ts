// The engine behind the socket, and what all ask of it. dockerode is loaded only when a command comes this far.

import { availableParallelism } from "node:os";
import type Docker from "dockerode";
import { statusOf } from "./docker-errors.ts";
import { endpointOf } from "./endpoint.ts";
import { Failure } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { waitFor } from "../std/wait.ts";

export type { Docker };

/** 20.10, the first engine with everything that is used here. */
export const minimumApi = "1.41";

export async function connect(env: NodeJS.ProcessEnv): Promise<Docker> {
  const { host } = endpointOf(env);
  const { default: Dockerode } = await import("dockerode");
  if (host.startsWith("unix://")) {
    return new Dockerode({ socketPath: host.slice("unix://".length) });
  }
  // docker-modem reads tcp, ssh and TLS settings from DOCKER_HOST itself.
  if (env["DOCKER_HOST"] === host) return new Dockerode();
  throw new Failure("engine", `Cannot use the engine at ${host}`, {
    hint: `Set DOCKER_HOST=${host} to reach an engine over the network.`,
  });
}

/** Docker's JSON of a container, or undefined where there is none. */
export async function inspectContainer(
  docker: Docker,
  name: string,
): Promise<Docker.ContainerInspectInfo | undefined> {
  return await orUndefined(docker.getContainer(name).inspect());
}

/** Docker's JSON of a container; throws a `notFound` Failure for none. */
export async function findContainer(
  docker: Docker,
  name: string,
): Promise<Docker.ContainerInspectInfo> {
  const found = await inspectContainer(docker, name);
  if (found) return found;
  throw new Failure("notFound", `There is no container "${name}"`, {
    hint: "See 'claudy daemon status'.",
  });
}

/** The container whose namespace a network mode joins, undefined for others. */
export function holderOf(mode: string): string | undefined {
  return /^container:(.+)$/.exec(mode)?.[1];
}

/**
 * When the namespace of a container was made, undefined where there is none. A
 * container gets a new one each time that it is started.
 */
export async function namespaceStart(
  docker: Docker,
  holder: string,
): Promise<string | undefined> {
  const found = await inspectContainer(docker, holder);
  return found?.State.Running ? found.State.StartedAt : undefined;
}

/** Docker's times as numbers: it drops the zeros that text would compare by. */
export function isBefore(time: string, other: string): boolean {
  return Date.parse(time) < Date.parse(other);
}

/** Docker's JSON of an image, or undefined where there is none. */
export async function inspectImage(
  docker: Docker,
  name: string,
): Promise<Docker.ImageInspectInfo | undefined> {
  return await orUndefined(docker.getImage(name).inspect());
}

/** Docker's JSON of a volume, or undefined where there is none. */
export async function inspectVolume(
  docker: Docker,
  name: string,
): Promise<Docker.VolumeInspectInfo | undefined> {
  return await orUndefined(docker.getVolume(name).inspect());
}

/**
 * Creates a container. dockerode would put a spec, Env included, into the
 * request's URL; this form keeps it in the body.
 */
export async function createContainer(
  docker: Docker,
  name: string,
  spec: Docker.ContainerCreateOptions,
): Promise<Docker.Container> {
  const request = { _query: { name }, _body: spec };
  return await docker.createContainer(
    request as unknown as Docker.ContainerCreateOptions,
  );
}

/** A removal that another command has begun takes no longer. */
const removalMs = 10_000;

/** Removes a container in any state; a missing one is not an error. */
export async function removeContainer(
  docker: Docker,
  name: string,
): Promise<void> {
  try {
    await docker.getContainer(name).remove({ force: true, v: true });
  } catch (error) {
    const status = statusOf(error);
    if (status === 404) return;
    if (status !== 409) throw error;
    // Another command is removing it; its name is free only after that.
    await waitFor(async () => !await inspectContainer(docker, name), {
      for: `the removal of ${name}`,
      timeoutMs: removalMs,
    });
  }
}

/** Removes an image that has lost its name to a new one, unless it is in use. */
export async function dropImage(docker: Docker, id: string): Promise<void> {
  const image = await inspectImage(docker, id);
  if (!image || image.RepoTags?.length > 0) return;
  try {
    await docker.getImage(id).remove();
  } catch (error) {
    if (statusOf(error) !== 409) throw error;
  }
}

/** CPUs as asked for, or as many as the engine has; it refuses more. */
export async function capCpus(
  docker: Docker,
  cpus: number,
  log: Log,
): Promise<number> {
  // The engine is asked only where this machine, most often the same, has fewer.
  if (cpus <= availableParallelism()) return cpus;
  const { NCPU } = await docker.info();
  if (cpus <= NCPU) return cpus;
  log(`The engine has ${NCPU} CPUs: taking those, not ${cpus}`);
  return NCPU;
}

/**
 * Whether the engine gives containers other users than the host's (userns-remap): a
 * parent could not read the home that is mounted into it.
 */
export function remapsUsers(
  { SecurityOptions }: { SecurityOptions?: string[] },
): boolean {
  return (SecurityOptions ?? [])
    .some((option) => option.split(",").includes("name=userns"));
}

/** What to do about that. */
export const remapHint =
  "Use an engine without userns-remap: remove it from /etc/docker/daemon.json, " +
  "or point DOCKER_HOST at another engine.";

async function orUndefined<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (statusOf(error) === 404) return undefined;
    throw error;
  }
}

/** The variables that a container was created with, its image's included. */
export function environmentOf(
  container: Docker.ContainerInspectInfo | undefined,
): Record<string, string> {
  return Object.fromEntries(
    (container?.Config.Env ?? []).map((line) => {
      const at = line.indexOf("=");
      return [line.slice(0, at), line.slice(at + 1)];
    }),
  );
}
