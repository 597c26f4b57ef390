// Common calls to the engine's API. dockerode is loaded only when it is needed.

import type Docker from "dockerode";
import { statusOf } from "./docker-errors.ts";
import { endpointOf } from "./endpoint.ts";
import { engineInfo, fitSpec } from "./engine-info.ts";
import { Failure } from "../std/errors.ts";
import { waitFor } from "../std/wait.ts";

export type { Docker };

/** Docker 20.10, the first release with everything that is used here. */
export const minimumApi = "1.41";

export async function connect(env: NodeJS.ProcessEnv): Promise<Docker> {
  const { host } = endpointOf(env);
  const { default: Dockerode } = await import("dockerode");
  if (host.startsWith("unix://")) {
    return new Dockerode({ socketPath: host.slice("unix://".length) });
  }
  // docker-modem itself reads tcp, ssh and TLS settings from the environment.
  if (env["DOCKER_HOST"] === host) return new Dockerode();
  throw new Failure("engine", `Cannot use the engine at ${host}`, {
    hint: `Set DOCKER_HOST=${host} to reach an engine over the network.`,
  });
}

/** Docker's JSON of a container; undefined if there is no such container. */
export async function inspectContainer(
  docker: Docker,
  name: string,
): Promise<Docker.ContainerInspectInfo | undefined> {
  return await orUndefined(docker.getContainer(name).inspect());
}

/** Docker's JSON of a container; throws a `notFound` Failure if it is missing. */
export async function findContainer(
  docker: Docker,
  name: string,
): Promise<Docker.ContainerInspectInfo> {
  const found = await inspectContainer(docker, name);
  if (found) return found;
  throw new Failure("notFound", `There is no container "${name}"`, {
    hint: "Start the daemon: claudy daemon start",
  });
}

/** The container that a network mode "container:ID" refers to, otherwise undefined. */
export function holderOf(mode: string): string | undefined {
  return /^container:(.+)$/.exec(mode)?.[1];
}

/**
 * When the network namespace of a container was created; undefined if the container is
 * not running. A container gets a new namespace each time it starts.
 */
export async function namespaceStart(
  docker: Docker,
  holder: string,
): Promise<string | undefined> {
  const found = await inspectContainer(docker, holder);
  return found?.State.Running ? found.State.StartedAt : undefined;
}

/** Compares Docker's timestamps as numbers: Docker omits trailing zeros. */
export function isBefore(time: string, other: string): boolean {
  return Date.parse(time) < Date.parse(other);
}

/** Docker's JSON of an image; undefined if there is none, or its name is not legal. */
export async function inspectImage(
  docker: Docker,
  name: string,
): Promise<Docker.ImageInspectInfo | undefined> {
  const image = docker.getImage(encodeURI(name));
  return await orUndefined(image.inspect(), [400, 404]);
}

/** Docker's JSON of a volume; undefined if there is no such volume. */
export async function inspectVolume(
  docker: Docker,
  name: string,
): Promise<Docker.VolumeInspectInfo | undefined> {
  return await orUndefined(docker.getVolume(name).inspect());
}

/**
 * Creates a container, as the engine can have it. By default dockerode puts the spec,
 * including Env, into the request's URL; this form sends it in the body.
 */
export async function createContainer(
  docker: Docker,
  name: string,
  spec: Docker.ContainerCreateOptions,
): Promise<Docker.Container> {
  const body = fitSpec(spec, await engineInfo(docker));
  const request = { _query: { name }, _body: body };
  return await docker.createContainer(
    request as unknown as Docker.ContainerCreateOptions,
  );
}

/**
 * Whether a container was not created or renamed because the name is taken: Docker answers
 * 409, and Podman 500.
 */
export async function isNameTaken(
  docker: Docker,
  name: string,
  error: unknown,
): Promise<boolean> {
  const status = statusOf(error);
  return status === 409 ||
    status === 500 && await inspectContainer(docker, name) !== undefined;
}

/** The longest time to wait for a removal that another command has started. */
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
    // Another command is removing it; the name is free only afterwards.
    await waitFor(async () => !await inspectContainer(docker, name), {
      for: `the removal of ${name}`,
      timeoutMs: removalMs,
    });
  }
}

/** Removes an image that has no tag any more, unless it is in use. */
export async function dropImage(docker: Docker, id: string): Promise<void> {
  const image = await inspectImage(docker, id);
  if (!image || image.RepoTags?.length > 0) return;
  try {
    await docker.getImage(id).remove();
  } catch (error) {
    if (statusOf(error) !== 409) throw error;
  }
}

async function orUndefined<T>(
  answer: Promise<T>,
  absent = [404],
): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (absent.includes(statusOf(error) ?? 0)) return undefined;
    throw error;
  }
}

/** The environment variables of a container, including those of its image. */
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
