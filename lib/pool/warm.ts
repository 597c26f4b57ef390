// Warm workers: running, but not yet used for a project.

import { createHash, randomBytes } from "node:crypto";
import { inspectContainer, inspectImage } from "../docker/docker.ts";
import { fitLimits } from "../docker/engine-info.ts";
import type { Instance } from "../instance/instance.ts";
import type { CacheKind } from "../instance/settings.ts";
import type { Log } from "../std/log.ts";
import { ensureNetFiles } from "../worker/net-files.ts";
import { isolatedMode, markOf, newMark } from "../worker/network.ts";
import { workerSeccomp } from "../image/seccomp.ts";
import { packageCaches, readyCaches } from "../worker/caches.ts";
import { type Limits, wantedLimits } from "../worker/limits.ts";
import { lacksLfs } from "../worker/request.ts";
import { timeZone, ulimits, workerSpec } from "../worker/spec.ts";
import { createWorker, startWorker } from "../worker/worker.ts";
import { insideWorker } from "../instance/paths.ts";
import { ensureAccounts } from "../home/worker-home.ts";
import { listWarm } from "../worker/workers.ts";
import type { ContainerProcess } from "../nsenter/privileged/namespaces.ts";

export interface WarmWorker extends ContainerProcess {
  id: string;
  name: string;
  /** When it was created, in milliseconds. */
  since: number;
  /** The name it was created with. */
  image: string;
  /** Digest of the recipe that it was created from. */
  inputs: string;
}

/** Everything that a warm worker is currently created from. */
export interface WarmRecipe {
  image: string;
  /** The id that this name currently has. */
  imageId: string;
  network: string;
  relay: boolean;
  caches: readonly CacheKind[];
  limits: Limits;
  seccomp: string | undefined;
  /** Whether the image has no git-lfs. */
  lacksLfs: boolean;
  /** Digest of all fields; a worker with another digest is stale. */
  inputs: string;
}

/** The namespace that warm workers join; it changes when the net container restarts. */
export interface WarmNetwork {
  mode: string;
  since: string;
}

/** Undefined if the image does not exist. */
export async function warmRecipe(
  instance: Instance,
  image: string,
  network: WarmNetwork,
  log: Log,
): Promise<WarmRecipe | undefined> {
  const found = await inspectImage(instance.docker, image);
  if (!found) return undefined;
  // The claim checks them, and tells of what it changes.
  const wanted = wantedLimits(instance.settings, found);
  const limits = await fitLimits(instance.docker, wanted, () => {});
  const seccomp = await workerSeccomp(instance, log);
  const relay = instance.settings.HAL9000_RELAY === "on";
  const caches = instance.settings.WORKER_CACHES;
  const inputs = createHash("sha256")
    .update(
      JSON.stringify([
        found.Id,
        network,
        limits,
        ulimits,
        insideWorker,
        seccomp,
        relay,
        packageCaches(instance, caches),
      ]),
    )
    .digest("hex").slice(0, 16);
  return {
    image,
    imageId: found.Id,
    network: network.mode,
    relay,
    caches,
    limits,
    seccomp,
    lacksLfs: lacksLfs(found),
    inputs,
  };
}

export async function createWarm(
  instance: Instance,
  recipe: WarmRecipe,
): Promise<WarmWorker> {
  const { docker, names, prefix, owner, hostHome } = instance;
  const name = names.warm(randomBytes(4).toString("hex"));
  const mark = newMark();
  const spec = workerSpec({
    prefix,
    home: hostHome.home,
    user: owner,
    image: recipe.image,
    network: recipe.network,
    relay: recipe.relay,
    seccomp: recipe.seccomp,
    limits: recipe.limits,
    sources: {
      claudeConfig: hostHome.claudeConfig,
      credentials: recipe.relay ? hostHome.noCredentials : hostHome.credentials,
      plugins: names.volumes.plugins,
      accounts: ensureAccounts(instance, owner),
      netFiles: recipe.network === isolatedMode
        ? undefined
        : await ensureNetFiles(instance, recipe.network),
    },
    env: [`TZ=${timeZone()}`, mark],
    mounts: [],
    caches: await readyCaches(instance, owner, () => {}),
    command: undefined,
    terminal: false,
    keep: false,
    inputs: recipe.inputs,
  });
  const id = await createWorker(docker, name, spec);
  await startWorker(docker, name, id);
  const { State } = await docker.getContainer(id).inspect();
  const { image, inputs } = recipe;
  return { id, name, pid: State.Pid, mark, since: Date.now(), image, inputs };
}

/** Whether more processes run in a worker than in an idle one. */
export async function isUsed(
  { docker }: Pick<Instance, "docker">,
  id: string,
): Promise<boolean> {
  try {
    const { Processes } = await docker.getContainer(id).top();
    return Processes.length > idleProcesses;
  } catch {
    return false; // it has ended
  }
}

/** Docker's init process, and the idle command. */
const idleProcesses = 2;

/** Warm workers of an earlier manager: those that can be claimed, and dead ones. */
export async function findWarm(
  instance: Instance,
): Promise<{ ready: WarmWorker[]; dead: { id: string }[] }> {
  const found = await listWarm(instance);
  const ready: WarmWorker[] = [];
  const dead: { id: string }[] = [];
  for (const worker of found) {
    const present = await inspectContainer(instance.docker, worker.id);
    if (!present) continue; // removed in the meantime
    const { State, Config } = present;
    const mark = markOf(Config);
    if (!State.Running || State.Paused || mark === undefined) {
      dead.push(worker);
      continue;
    }
    ready.push({
      id: worker.id,
      name: worker.name,
      pid: State.Pid,
      mark,
      since: Date.parse(worker.createdAt),
      image: Config.Image,
      inputs: worker.inputs ?? "",
    });
  }
  return { ready, dead };
}
