// The limits of a worker: as configured, but at most what the engine has.

import type { Docker } from "../docker/docker.ts";
import { checkLimits, fitLimits } from "../docker/engine-info.ts";
import type { Instance } from "../instance/instance.ts";
import { label } from "../instance/labels.ts";
import type { Settings } from "../instance/settings.ts";
import type { Log } from "../std/log.ts";

/** 0 is no limit: the engine cannot enforce it. */
export interface Limits {
  memoryBytes: number;
  cpus: number;
  /** Of processes and threads together. */
  pids: number;
}

/** For images without the label: enough for Claude, too few for most builds. */
const defaultPids = 100;

/** The setting, else the default of the image, which is higher in profiles. */
export function pidsLimit(
  { WORKER_PIDS_LIMIT }: Pick<Settings, "WORKER_PIDS_LIMIT">,
  image?: Docker.ImageInspectInfo,
): number {
  const labelled = image?.Config?.Labels?.[label.pids] ?? "";
  const ofImage = /^[1-9]\d{0,5}$/.test(labelled)
    ? Number(labelled)
    : defaultPids;
  return WORKER_PIDS_LIMIT ?? ofImage;
}

export async function workerLimits(
  { docker, settings }: Pick<Instance, "docker" | "settings">,
  image: Docker.ImageInspectInfo | undefined,
  log: Log,
): Promise<Limits> {
  await checkLimits(docker, { required: settings.REQUIRE_LIMITS, log });
  return await fitLimits(docker, wantedLimits(settings, image), log);
}

/** The limits before they are fitted to the engine. */
export function wantedLimits(
  settings: Settings,
  image: Docker.ImageInspectInfo | undefined,
): Limits {
  return {
    memoryBytes: settings.WORKER_MEMORY,
    cpus: settings.WORKER_CPUS,
    pids: pidsLimit(settings, image),
  };
}
