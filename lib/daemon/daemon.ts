// Starts and stops the parent and what it needs.

import {
  createOnce,
  ownContainer,
  startContainer,
  stopParent,
  unpause,
} from "../instance/container.ts";
import { type Docker, inspectImage } from "../docker/docker.ts";
import {
  engineSocket,
  fitLimits,
  userInContainers,
} from "../docker/engine-info.ts";
import { execIn } from "../docker/exec.ts";
import { hostNetwork, writeHostNetwork } from "../egress/upstream.ts";
import { Failure, messageOf } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { refuseWhileMoving } from "../instance/migration-journal.ts";
import { progressOf } from "../docker/progress.ts";
import { ensureNet, type NetworkRequest, noRequest, removeNet } from "./net.ts";
import { refreshNetFiles } from "../worker/net-files.ts";
import { placeEnv } from "../instance/protected.ts";
import {
  findCrossing,
  foreignOwner,
  ownerHint,
} from "../instance/parent-socket.ts";
import { waitForPorts, waitForServices } from "./services.ts";
import { parentSpec } from "./specs.ts";
import {
  foreignStateOwner,
  forgetParentState,
  type ParentState,
  readParentState,
} from "../instance/parent-state.ts";
import { insideNsenter, removeWarm } from "../nsenter/container.ts";
import { ensureSeccompTried } from "../image/seccomp.ts";
import { ensureStorage, unwritableHome } from "../instance/volumes.ts";
import { waitFor } from "../std/wait.ts";
import { timeZone } from "../worker/spec.ts";
import {
  listWorkers,
  liveWorkers,
  withoutNetwork,
  type WorkerState,
} from "../worker/workers.ts";

/** Settings that are passed to the parent if the environment sets them. */
const forwardedSettings = [
  "HAL9000_IMAGE_REPO",
  "WORKER_IMAGE",
  "WORKER_MEMORY",
  "WORKER_DISK",
  "WORKER_CPUS",
  "WORKER_PIDS_LIMIT",
  "WORKER_NETWORK",
  "HAL9000_RELAY",
  "REQUIRE_LIMITS",
  "WORKER_SECCOMP",
  "CHROMADB_PORT",
  "ALLOW_HOST",
  "MAX_REQUESTS_PER_MINUTE",
  "RESUME_WHEN_RESET",
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
 * Starts the net container, then the parent, and waits until it is ready. Restarts
 * what an engine restart left stopped. Idempotent.
 */
export async function startDaemon(
  instance: Instance,
  env: NodeJS.ProcessEnv,
  log: Log,
  network: NetworkRequest = noRequest,
): Promise<ParentState> {
  refuseStart(instance);
  const image = await presentImage(instance);
  await ensureStorage(instance);
  const net = await ensureNet(instance, image, network, log);
  await unpause(instance.docker, net, log);
  await refreshNetFiles(instance, net.Id);
  await ensureSeccompTried(instance, log);
  await ensureParent(instance, env, image, log);
  const state = await waitUntilReady(instance);
  // Sessions work without them.
  await waitForPorts(instance).catch((error) =>
    log(`warning: ${messageOf(error)}`)
  );
  await warnOfOwners(instance, log);
  const workers = await listWorkers(instance);
  await warnOfLostNetworks(instance, workers, log);
  await waitForServices(instance, workers, log);
  return state;
}

/** Some machines show each user's files as its own; then it does not matter. */
export async function warnOfOwners(
  instance: Instance,
  log: Log,
): Promise<void> {
  const foreign = await foreignOwner(instance);
  if (foreign === undefined || await ownerWrites(instance)) return;
  log(`warning: Sessions cannot write: ${foreign}. ${ownerHint}`);
}

/** Whether the home's owner can write to it in containers, as nsenter sees it. */
async function ownerWrites(
  { docker, home, names, owner }: Instance,
): Promise<boolean> {
  try {
    const { uid, gid } = await userInContainers(docker, owner, home.home);
    const command = ["test", "-w", insideNsenter.run];
    const user = `${uid}:${gid}`;
    return (await execIn(docker, names.nsenter, command, { user })).exitCode ===
      0;
  } catch {
    return false;
  }
}

/** A worker's namespace cannot be changed, so the user has to act. */
async function warnOfLostNetworks(
  instance: Instance,
  workers: WorkerState[],
  log: Log,
): Promise<void> {
  const lost = await withoutNetwork(instance, workers);
  if (lost.size === 0) return;
  log(
    `warning: The network of ${
      [...lost].join(", ")
    } has ended and cannot be restored. Stop each worker, then reopen its ` +
      "project: the conversation is kept",
  );
}

/** Removes the parent; the net container too, unless workers run. */
export async function stopDaemon(
  instance: Instance,
  log: Log,
): Promise<void> {
  refuseInside(instance);
  await stopParent(instance);
  // nsenter stays with the workers, which go on using MCP servers.
  await removeWarm(instance);
  const live = await liveWorkers(instance);
  if (live.length === 0) {
    await removeNet(instance);
  } else {
    log(`Workers still running: ${live.join(", ")}`);
  }
}

/** Starts a new parent from the current image; workers and their network stay. */
export async function restartDaemon(
  instance: Instance,
  env: NodeJS.ProcessEnv,
  log: Log,
  network: NetworkRequest = noRequest,
): Promise<ParentState> {
  refuseStart(instance);
  await stopParent(instance);
  return await startDaemon(instance, env, log, network);
}

/** Throws if the parent must not be started; also called before one is stopped. */
export function refuseStart(instance: Instance): void {
  refuseInside(instance);
  refuseUnwritable(instance);
  refuseWhileMoving(instance);
}

function refuseUnwritable({ home }: Pick<Instance, "home">): void {
  const failure = unwritableHome(home);
  if (failure) throw failure;
}

/** Stopping the parent would end this command half-way. */
function refuseInside({ self }: Pick<Instance, "self">): void {
  if (!self) return;
  throw new Failure("usage", "The parent cannot start or stop itself", {
    hint: "Run this on the host.",
  });
}

/** The parent's image; throws if it was never built. */
export async function presentImage(
  { docker, settings }: Pick<Instance, "docker" | "settings">,
): Promise<string> {
  const name = `${settings.HAL9000_IMAGE_REPO}:parent`;
  if (await inspectImage(docker, name)) return name;
  throw new Failure("notFound", `There is no image ${name}`, {
    hint: "Build the images: claudy up",
  });
}

async function ensureParent(
  instance: Instance,
  env: NodeJS.ProcessEnv,
  image: string,
  log: Log,
): Promise<void> {
  const { docker, names, settings, hostHome } = instance;
  const wanted = await docker.getImage(image).inspect();
  let present = await ownContainer(instance, names.parent, "parent");
  if (
    present && (present.Image !== wanted.Id ||
      present.HostConfig.NetworkMode?.startsWith("container:"))
  ) {
    log("Replacing the parent: its image or network is outdated");
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
        hostHome: hostHome.home,
        socket: settings.HAL9000_ENGINE_SOCKET ||
          await engineSocket(docker, instance.socket),
        roots: settings.HAL9000_PROJECT_ROOTS,
        volumes: names.volumes,
        claudeConfig: hostHome.claudeConfig,
        ...await fitLimits(docker, {
          memoryBytes: settings.PARENT_MEMORY,
          cpus: settings.PARENT_CPUS,
        }, log),
        env: {
          ...Object.fromEntries(forwardedSettings.flatMap((key) => {
            const value = env[key];
            return value ? [[key, value]] : [];
          })),
          // For workers that the parent creates.
          TZ: timeZone(),
          ...placeEnv(instance.places),
        },
      }),
    );
  }
  if (present) await unpause(docker, present, log);
  if (!present?.State.Running) {
    writeHostNetwork(instance, hostNetwork(env, log));
    forgetParentState(instance);
    await startContainer(docker, names.parent);
    return;
  }
  const reason = await restartReason(instance, present);
  if (reason === undefined) return;
  log(`Restarting the parent: ${reason}`);
  forgetParentState(instance);
  await docker.getContainer(names.parent).restart({ t: 5 });
}

/** Time for a started parent to write its state. */
const stateWriteMs = 10_000;

/** Why a running parent has to be restarted; undefined if it is healthy. */
async function restartReason(
  instance: Instance,
  parent: Docker.ContainerInspectInfo,
): Promise<string | undefined> {
  const age = Date.now() - Date.parse(parent.State.StartedAt);
  if (age <= stateWriteMs) return undefined;
  const state = readParentState(instance);
  if (state?.container !== parent.Id) {
    return "its state file cannot be read";
  }
  return state.ready && !await findCrossing(instance, parent.Id)
    ? "it does not answer"
    : undefined;
}

/** How long the parent and ChromaDB may take to start, without progress. */
const startMs = 60_000;

/** A ChromaDB that has been started so often without answering does not start. */
const maxChromadbRestarts = 4;

/**
 * For commands that need ChromaDB; a ready parent may still be starting it. Throws a
 * `failed` Failure if it does not answer.
 */
export async function waitForChromadb(
  instance: Pick<Instance, "docker" | "home" | "names">,
): Promise<void> {
  const hint = `See why: claudy daemon status, and ${
    instance.home.childLog("chromadb")
  }`;
  await waitFor(() => {
    const state = readParentState(instance);
    if (state?.chromadbFault === null) return true;
    const child = state?.children.find(({ name }) => name === "chromadb");
    if (child && child.restarts >= maxChromadbRestarts) {
      throw new Failure(
        "failed",
        "ChromaDB does not start: it ends each time",
        {
          hint,
        },
      );
    }
    return false;
  }, {
    for: "ChromaDB to answer",
    timeoutMs: startMs,
    hint,
    isProgressing: progressOf(instance.docker, instance.names.parent, startMs),
  });
}

/** Waits until the running parent has completed its start, and finds out how to reach it. */
export async function waitUntilReady(instance: Instance): Promise<ParentState> {
  const { docker, names } = instance;
  const ready = await waitFor(async () => {
    const state = readParentState(instance);
    const parent = await docker.getContainer(names.parent).inspect();
    if (!parent.State.Running || parent.State.Restarting) {
      const socket = instance.settings.HAL9000_ENGINE_SOCKET;
      throw new Failure("failed", `${names.parent} ended during its start`, {
        hint: `See why: docker logs ${names.parent}` +
          (socket
            ? `\nCheck that HAL9000_ENGINE_SOCKET is the engine's socket: ${socket}`
            : ""),
      });
    }
    const uid = state ? undefined : foreignStateOwner(instance);
    if (uid !== undefined) {
      throw new Failure(
        "failed",
        `Cannot read ${instance.home.parentState}: it belongs to uid ${uid}, ` +
          "so the engine's machine does not keep owners",
        { hint: ownerHint },
      );
    }
    return state?.ready && state.container === parent.Id ? state : undefined;
  }, {
    for: `${names.parent} to be ready`,
    timeoutMs: startMs,
    hint: `See why: docker logs ${names.parent}`,
    isProgressing: progressOf(docker, names.parent, startMs),
  });
  await findCrossing(instance, ready.container);
  return ready;
}
