// Operations on the instance's containers with fixed names.

import {
  createContainer,
  type Docker,
  inspectContainer,
  isNameTaken,
  removeContainer,
} from "../docker/docker.ts";
import { engineFailure, statusOf } from "../docker/docker-errors.ts";
import { Failure } from "../std/errors.ts";
import type { Instance } from "./instance.ts";
import { isOfInstance, label, type Role } from "./labels.ts";
import type { Log } from "../std/log.ts";
import { isSameHome } from "./ownership.ts";
import { waitFor } from "../std/wait.ts";

/**
 * The instance's container with a name; undefined if there is none. Throws a `busy`
 * Failure if a container with this name belongs to something else, which includes an
 * instance of another home that was created since this command began.
 */
export async function ownContainer(
  instance: Instance,
  name: string,
  role: Role,
): Promise<Docker.ContainerInspectInfo | undefined> {
  const { docker, prefix } = instance;
  const present = await inspectContainer(docker, name);
  const labels = present?.Config.Labels ?? {};
  const home = labels[label.home];
  const own = isOfInstance(prefix, role, labels) &&
    (home === undefined || isSameHome(instance, home));
  if (!present || own) return present;
  throw new Failure("busy", `Container "${name}" is not this instance's`, {
    hint: "Rename it, or set another HAL9000_PREFIX.",
  });
}

/**
 * Creates a container unless another command is already creating it. In that case, waits
 * until it exists, and tries again if the other command fails.
 */
export async function createOnce(
  docker: Docker,
  name: string,
  spec: Docker.ContainerCreateOptions,
): Promise<void> {
  await waitFor(async () => {
    try {
      await createContainer(docker, name, spec);
      return true;
    } catch (error) {
      if (!await isNameTaken(docker, name, error)) {
        throw engineFailure(error, `Cannot create ${name}`);
      }
      return await inspectContainer(docker, name);
    }
  }, { for: `${name} to be created`, timeoutMs: 30_000 });
}

/** Starts a container; a running container is not an error. */
export async function startContainer(
  docker: Docker,
  name: string,
): Promise<void> {
  try {
    await docker.getContainer(name).start();
  } catch (error) {
    if (statusOf(error) !== 304) {
      throw engineFailure(error, `Cannot start ${name}`);
    }
  }
}

/** Unpauses a paused container. */
export async function unpause(
  docker: Docker,
  { Id, Name, State }: Docker.ContainerInspectInfo,
  log: Log,
): Promise<void> {
  if (!State.Paused) return;
  log(`${Name.slice(1)} was paused; unpausing it`);
  try {
    await docker.getContainer(Id).unpause();
  } catch (error) {
    // Another command was faster: Docker answers 409, and Podman 500.
    if (statusOf(error) === 409) return;
    if ((await inspectContainer(docker, Id))?.State.Paused !== false) {
      throw engineFailure(error, `Cannot unpause ${Name.slice(1)}`);
    }
  }
}

/** Stops and removes the parent if it exists. */
export async function stopParent(instance: Instance): Promise<void> {
  const { docker, names } = instance;
  if (!await ownContainer(instance, names.parent, "parent")) return;
  try {
    await docker.getContainer(names.parent).stop({ t: 10 });
  } catch (error) {
    // 304: already stopped; 404: removed meanwhile.
    if (![304, 404].includes(statusOf(error) ?? 0)) {
      throw engineFailure(error, "Cannot stop the parent");
    }
  }
  await removeContainer(docker, names.parent);
}

/** The workers' network mode; in inspect output the engine replaces the name by the id. */
export function workersNetwork({ names }: Pick<Instance, "names">): string {
  return `container:${names.net}`;
}
