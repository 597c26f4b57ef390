// The parent and what it needs: brought up, taken down.

import {
  createOnce,
  ownContainer,
  startContainer,
  stopParent,
  unpause,
} from "./container.ts";
import {
  capCpus,
  type Docker,
  inspectImage,
  isBefore,
  remapHint,
  remapsUsers,
  removeContainer,
} from "./docker.ts";
import { Failure, messageOf } from "./errors.ts";
import { forwardAnswers } from "./forward.ts";
import type { Instance } from "./instance.ts";
import type { Log } from "./log.ts";
import { ensureForwarder, removeForwarder } from "./mcp/forwarder.ts";
import { refuseWhileMoving } from "./migration/journal.ts";
import { ensureNet, withoutNetwork } from "./net.ts";
import { refreshNetFiles } from "./net-files.ts";
import { placeEnv } from "./protected.ts";
import { parentSpec, type PublishedPort } from "./parent-spec.ts";
import {
  forgetParentState,
  type ParentState,
  readParentState,
} from "./parent-state.ts";
import { removePool } from "./pool/mounter.ts";
import { ensureSeccompTried } from "./seccomp.ts";
import { ensureStorage, unwritableHome } from "./volumes.ts";
import { waitFor } from "./wait.ts";
import { listWorkers, liveWorkers } from "./workers.ts";

/** Settings that the parent is told, where the environment set them. */
const passedOn = [
  "HAL9000_IMAGE_REPO",
  "WORKER_IMAGE",
  "WORKER_MEMORY",
  "WORKER_CPUS",
  "WORKER_PIDS_LIMIT",
  "WORKER_SECCOMP",
  "CHROMADB_PORT",
  "ENABLE_POOL_MANAGER",
  "MIN_WARM_WORKERS",
  "MAX_WARM_WORKERS",
  "IDLE_TIMEOUT",
  "CHECK_INTERVAL",
  "WARM_PROFILES",
  "SKIP_IMAGE_PULL",
  "LAZY_IMAGE_PULL",
] as const;

/**
 * Brings up net, then the parent, and waits until it is ready. Mends what an
 * engine restart left down. Twice changes nothing.
 */
export async function startDaemon(
  instance: Instance,
  env: NodeJS.ProcessEnv,
  log: Log,
  published: PublishedPort[] = [],
): Promise<ParentState> {
  refuseInside(instance);
  refuseUnwritable(instance);
  refuseWhileMoving(instance);
  await refuseRemap(instance);
  const images = await presentImages(instance);
  await ensureStorage(instance);
  const net = await ensureNet(instance, images.net, published);
  await unpause(instance.docker, net, log);
  await refreshNetFiles(instance, net.Id);
  await ensureSeccompTried(instance, log);
  await ensureParent(instance, env, net, images.parent, log);
  try {
    await ensureForwarder(instance);
  } catch (error) {
    // Sessions do without.
    log(`warning: ${messageOf(error)}`);
  }
  const state = await waitUntilReady(instance);
  await tellOfLostNetworks(instance, log);
  return state;
}

/** Nothing can give a worker another namespace, so people have to know. */
async function tellOfLostNetworks(instance: Instance, log: Log): Promise<void> {
  const lost = await withoutNetwork(instance, await listWorkers(instance));
  if (lost.size === 0) return;
  log(
    `warning: The network of ${
      [...lost].join(", ")
    } has ended; it cannot be restored. Stop each, then open its project ` +
      "again: the conversation goes on",
  );
}

/** Removes the parent; net too, unless workers live in it. */
export async function stopDaemon(
  instance: Instance,
  log: Log,
): Promise<void> {
  const { docker, names } = instance;
  refuseInside(instance);
  await stopParent(instance);
  await removePool(instance);
  const live = await liveWorkers(instance);
  if (live.length === 0) {
    await removeForwarder(instance);
    await ownContainer(instance, names.net, "net");
    await removeContainer(docker, names.net);
  } else {
    log(`Workers that go on running: ${live.join(", ")}`);
  }
}

/** A new parent from the current image; workers and their network stay. */
export async function restartDaemon(
  instance: Instance,
  env: NodeJS.ProcessEnv,
  log: Log,
  published: PublishedPort[] = [],
): Promise<ParentState> {
  refuseInside(instance);
  // Before the parent that runs is stopped.
  refuseUnwritable(instance);
  await stopParent(instance);
  return await startDaemon(instance, env, log, published);
}

function refuseUnwritable({ home }: Instance): void {
  const failure = unwritableHome(home);
  if (failure) throw failure;
}

/** The parent would end with its own container, half-way. */
function refuseInside({ self }: Instance): void {
  if (!self) return;
  throw new Failure("usage", "The parent cannot start or stop itself", {
    hint: "Run this on the host.",
  });
}

/** Its parent would end as it starts, again and again. */
async function refuseRemap({ docker }: Instance): Promise<void> {
  if (!remapsUsers(await docker.info())) return;
  throw new Failure(
    "failed",
    "Cannot start the parent: the engine remaps users (userns-remap)",
    { hint: remapHint },
  );
}

async function presentImages(
  { docker, settings }: Instance,
): Promise<{ net: string; parent: string }> {
  const names = {
    net: `${settings.HAL9000_IMAGE_REPO}:net`,
    parent: `${settings.HAL9000_IMAGE_REPO}:parent`,
  };
  for (const name of Object.values(names)) {
    if (!await inspectImage(docker, name)) {
      throw new Failure("notFound", `There is no image ${name}`, {
        hint: "Build the images with 'make images'.",
      });
    }
  }
  return names;
}

async function ensureParent(
  instance: Instance,
  env: NodeJS.ProcessEnv,
  net: Docker.ContainerInspectInfo,
  image: string,
  log: Log,
): Promise<void> {
  const { docker, names, settings, hostHome } = instance;
  const wanted = await docker.getImage(image).inspect();
  let present = await ownContainer(instance, names.parent, "parent");
  if (
    present && (present.Image !== wanted.Id ||
      present.HostConfig.NetworkMode !== `container:${net.Id}`)
  ) {
    log("Replacing the parent: its image or its network is a former one");
    await stopParent(instance);
    present = undefined;
  }
  if (!present) {
    await createOnce(
      docker,
      names.parent,
      parentSpec({
        prefix: instance.prefix,
        image,
        net: net.Id,
        hostHome: hostHome.home,
        socket: instance.socket,
        roots: settings.HAL9000_PROJECT_ROOTS,
        volumes: names.volumes,
        claudeConfig: hostHome.claudeConfig,
        netFiles: hostHome.netFiles,
        memoryBytes: settings.PARENT_MEMORY,
        cpus: await capCpus(docker, settings.PARENT_CPUS, log),
        env: {
          ...Object.fromEntries(passedOn.flatMap((key) => {
            const value = env[key];
            return value ? [[key, value]] : [];
          })),
          ...placeEnv(instance.places),
        },
      }),
    );
  }
  if (present) await unpause(docker, present, log);
  if (!present?.State.Running) {
    forgetParentState(instance);
    await startContainer(docker, names.parent);
    return;
  }
  const reason = await restartReason(instance, present, net);
  if (reason === undefined) return;
  log(`Restarting the parent: ${reason}`);
  forgetParentState(instance);
  await docker.getContainer(names.parent).restart({ t: 5 });
}

/** A parent that was started this long ago has said so. */
const firstWordMs = 10_000;

/** Why a parent that runs is of no use, undefined where it is. */
async function restartReason(
  instance: Instance,
  parent: Docker.ContainerInspectInfo,
  net: Docker.ContainerInspectInfo,
): Promise<string | undefined> {
  if (isBefore(parent.State.StartedAt, net.State.StartedAt)) {
    // The namespace it was started in is gone; only loopback is left to it.
    return "its network was started after it";
  }
  const age = Date.now() - Date.parse(parent.State.StartedAt);
  if (age <= firstWordMs) return undefined;
  const state = readParentState(instance);
  if (state?.container !== parent.Id) {
    return "what it says of itself cannot be read";
  }
  return state.ready && !await forwardAnswers(instance)
    ? "it does not answer"
    : undefined;
}

async function waitUntilReady(instance: Instance): Promise<ParentState> {
  const { docker, names } = instance;
  return await waitFor(async () => {
    const state = readParentState(instance);
    const parent = await docker.getContainer(names.parent).inspect();
    if (!parent.State.Running) {
      throw new Failure("failed", `${names.parent} ended as it started`, {
        hint: `See why: docker logs ${names.parent}`,
      });
    }
    return state?.ready && state.container === parent.Id ? state : undefined;
  }, {
    for: `${names.parent} to be ready`,
    timeoutMs: 60_000,
    hint: `See why: docker logs ${names.parent}`,
  });
}
