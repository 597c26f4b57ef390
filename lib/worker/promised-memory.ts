// How much memory the limits of the running workers add up to. More than the machine has
// is usual, since few workers use theirs; but it can run out.

import { inspectContainer } from "../docker/docker.ts";
import { engineInfo } from "../docker/engine-info.ts";
import type { Instance } from "../instance/instance.ts";
import { binarySize } from "../std/units.ts";
import { listWarm, listWorkers } from "./workers.ts";

export interface PromisedMemory {
  workers: number;
  /** The sum of the limits; a worker without one counts as the whole machine. */
  promisedBytes: number;
  engineBytes: number;
}

export async function promisedMemory(
  instance: Instance,
): Promise<PromisedMemory> {
  const { docker } = instance;
  const [{ memoryBytes: engineBytes }, claimed, warm] = await Promise.all([
    engineInfo(docker),
    listWorkers(instance),
    listWarm(instance),
  ]);
  const running = [...claimed, ...warm]
    .filter(({ state }) => state === "running");
  const limits = await Promise.all(running.map(async ({ id }) => {
    const container = await inspectContainer(docker, id);
    return container ? container.HostConfig.Memory || engineBytes : 0;
  }));
  return {
    workers: running.length,
    promisedBytes: limits.reduce((sum, bytes) => sum + bytes, 0),
    engineBytes,
  };
}

/** For instance "5 workers may use 20 GiB of 23.6 GiB". */
export function promisedText(
  { workers, promisedBytes, engineBytes }: PromisedMemory,
): string {
  return `${workers} ${workers === 1 ? "worker" : "workers"} may use ` +
    `${binarySize(promisedBytes)} of ${binarySize(engineBytes)}`;
}
