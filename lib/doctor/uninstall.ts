// Removes an instance. Each step skips what is gone already, so that a second run finishes
// what a killed one began; the data, which holds the settings, is removed last.

import { existsSync, lstatSync, readdirSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { stopDaemon } from "../daemon/daemon.ts";
import {
  type Docker,
  familiarName,
  listImages,
  removeContainer,
} from "../docker/docker.ts";
import { engineFailure, statusOf } from "../docker/docker-errors.ts";
import { stopGateway } from "../gateway/gateway-process.ts";
import type { Instance } from "../instance/instance.ts";
import { withoutLinks } from "../instance/ownership.ts";
import {
  clean,
  planClean,
  refuseUnrelated,
  removeHome,
} from "../instance/storage.ts";
import { isSampleUnused, samplePath } from "../machine/sample.ts";
import { isWithin } from "../std/hostpath.ts";
import type { Log } from "../std/log.ts";
import { removeTree } from "../std/remove-tree.ts";
import { stopWorker } from "../worker/ending.ts";
import { listWorkers } from "../worker/workers.ts";
import { planUninstall, type UninstallPlan } from "./uninstall-plan.ts";

/** What there is now; asks the engine. */
export async function findInstalled(
  instance: Instance,
): Promise<UninstallPlan> {
  const { docker } = instance;
  const [containers, { Volumes }, images] = await Promise.all([
    docker.listContainers({ all: true }),
    docker.listVolumes(),
    listImages(docker),
  ]);
  return planUninstall(instance, {
    containers: containers.map((container) => ({
      ...container,
      Image: familiarName(container.Image),
    })),
    volumes: Volumes ?? [],
    images,
  });
}

/** Files that hold no data: staged images, Deno's cache, and an unused sample project. */
export function disposableFiles(
  { home }: Pick<Instance, "home">,
  userHome: string,
  env: NodeJS.ProcessEnv,
): string[] {
  const cache = denoCache(userHome, env);
  return [
    ...(existsSync(home.build) ? [home.build] : []),
    ...(isDenoCache(cache, home.home) ? [cache] : []),
    ...(isSampleUnused(userHome) ? [samplePath(userHome)] : []),
  ];
}

/** scripts/launch sets DENO_DIR to it. */
function denoCache(userHome: string, env: NodeJS.ProcessEnv): string {
  return join(env["XDG_CACHE_HOME"] || join(userHome, ".cache"), "hal9000");
}

/** What Deno creates in it: databases, and directories. */
const denoFile = /^(\w+_cache_v\d+(-\w+)?|gen|npm|remote|registries)$/;

/** False for anything else with this name, such as HAL9000_HOME or a clone. */
function isDenoCache(directory: string, home: string): boolean {
  if (!isAbsolute(directory) || !isRealDirectory(directory)) return false;
  const [cache, data] = [withoutLinks(directory), withoutLinks(home)];
  return !isWithin(cache, data) && !isWithin(data, cache) &&
    readdirSync(directory).every((name) => denoFile.test(name));
}

function isRealDirectory(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

/** Removes containers, images and files. Returns why some images were kept. */
export async function removeInstalled(
  instance: Instance,
  files: string[],
  log: Log,
): Promise<string[]> {
  const { docker } = instance;
  await stopGateway(instance);
  // The parent would start them again, or save their logs a second time.
  const workers = await listWorkers(instance);
  await Promise.all(workers.map((worker) => stopWorker(instance, worker, log)));
  await stopDaemon(instance, log);
  for (const name of (await findInstalled(instance)).containers) {
    await removeContainer(docker, name);
  }
  const { images } = await findInstalled(instance);
  const kept = await removeImages(docker, images);
  // Images that have lost their last name are removed, except those below others.
  const { untagged } = await findInstalled(instance);
  kept.push(...await removeImages(docker, untagged));
  for (const path of files) await removeTree(path);
  return kept;
}

async function removeImages(
  docker: Docker,
  names: string[],
): Promise<string[]> {
  const kept: string[] = [];
  for (const name of names) {
    try {
      await docker.getImage(name).remove();
    } catch (error) {
      // 404: it was removed with an image that was built on it.
      if (statusOf(error) !== 404) {
        kept.push(engineFailure(error, `Cannot remove image ${name}`).message);
      }
    }
  }
  return kept;
}

/** Deletes the volumes and HAL9000_HOME, with the backups in it. */
export async function removeData(instance: Instance): Promise<void> {
  refuseUnrelated(instance.home);
  await clean(instance, await planClean(instance));
  for (const name of (await findInstalled(instance)).volumes) {
    await instance.docker.getVolume(name).remove();
  }
  await removeHome(instance.home);
}
