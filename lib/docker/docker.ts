// Common calls to the engine's API.

import { Buffer } from "node:buffer";
import type Docker from "dockerode";
import { statusOf, withHint } from "./docker-errors.ts";
import { engineInfo, fitSpec, isElsewhere } from "./engine-info.ts";
import { Failure } from "../std/errors.ts";
import { waitFor } from "../std/wait.ts";

export type { Docker };

/** Docker's JSON of a container; undefined if there is no such container. */
export async function inspectContainer(
  docker: Docker,
  name: string,
  options: Docker.ContainerInspectOptions = {},
): Promise<Docker.ContainerInspectInfo | undefined> {
  return await orUndefined(docker.getContainer(name).inspect(options));
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

/** The log of a container, as the engine sends it: multiplexed unless it has a terminal. */
export async function readLog(
  docker: Docker,
  id: string,
  tail?: number,
): Promise<Uint8Array> {
  const log: unknown = await docker.getContainer(id).logs({
    stdout: true,
    stderr: true,
    follow: false,
    ...(tail === undefined ? {} : { tail }),
  });
  if (log instanceof Uint8Array) return log;
  // dockerode parses what is JSON. Podman may send an error after the status 200.
  const json = log as { cause?: unknown; message?: string };
  if (json.cause === undefined) return Buffer.from(JSON.stringify(json));
  throw Object.assign(new Error(json.message), { statusCode: 500, json });
}

/** Docker's JSON of an image; undefined if there is none, or its name is not legal. */
export async function inspectImage(
  docker: Docker,
  name: string,
): Promise<Docker.ImageInspectInfo | undefined> {
  const image = docker.getImage(encodeURI(name));
  return await orUndefined(image.inspect(), [400, 404]);
}

/** Docker's list of images, with their familiar names. */
export async function listImages(
  docker: Docker,
  options: Docker.ListImagesOptions = {},
): Promise<Docker.ImageInfo[]> {
  return (await docker.listImages(options)).map((image) => ({
    ...image,
    RepoTags: image.RepoTags?.map(familiarName),
  }));
}

/** An image's name as Docker shows it; Podman shows the registry and path of Docker Hub. */
export function familiarName(name: string): string {
  return name.replace(/^docker\.io\/(library\/)?/, "");
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
  const info = await engineInfo(docker);
  const request = { _query: { name }, _body: fitSpec(spec, info) };
  try {
    return await docker.createContainer(
      request as unknown as Docker.ContainerCreateOptions,
    );
  } catch (error) {
    // Among others if a mount's source is missing.
    const mayLackFiles = statusOf(error) === 400 && isElsewhere(info);
    throw mayLackFiles ? withHint(error, sharingHint) : error;
  }
}

const sharingHint = "The engine runs on another machine: share the directory " +
  "with that machine, or use one that it has.";

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

/**
 * Removes a container in any state; a missing one is not an error. Throws a `busy` Failure
 * that names the containers in its network if the engine does not remove it before them.
 */
export async function removeContainer(
  docker: Docker,
  name: string,
): Promise<void> {
  try {
    await docker.getContainer(name).remove({ force: true, v: true });
  } catch (error) {
    const status = statusOf(error);
    if (status === 404) return;
    if (status !== 409) {
      // The first error is what counts.
      const users = await usersOfNetwork(docker, name).catch(() => []);
      if (users.length === 0) throw error;
      throw new Failure(
        "busy",
        `Cannot remove ${name}: its network is used by ${users.join(", ")}`,
        {
          cause: error,
          hint: `Remove them first: docker rm ${users.join(" ")}`,
        },
      );
    }
    // Another command is removing it; the name is free only afterwards.
    await waitFor(async () => !await inspectContainer(docker, name), {
      for: `the removal of ${name}`,
      timeoutMs: removalMs,
    });
  }
}

/** Names of the containers in the network namespace of a container. */
async function usersOfNetwork(
  docker: Docker,
  name: string,
): Promise<string[]> {
  const holder = await inspectContainer(docker, name);
  // The list of Podman has no network modes.
  const all = await docker.listContainers({ all: true });
  const found = await Promise.all(
    all.map(({ Id }) => inspectContainer(docker, Id)),
  );
  const mode = `container:${holder?.Id}`;
  return found.flatMap((one) =>
    one?.HostConfig.NetworkMode === mode ? [one.Name.slice(1)] : []
  ).sort();
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
