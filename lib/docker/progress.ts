// Whether a container that takes long is slow, or hangs.

import type Docker from "dockerode";

/** A waiting process uses less of a CPU, and one that works gets more of a busy machine. */
const busyShare = 0.05;
const maxPeriods = 10;

/**
 * For waits: a function that returns whether the container has worked in the last period,
 * by its CPU time. False if the engine does not measure it, and after ten periods.
 */
export function progressOf(
  docker: Docker,
  id: string,
  periodMs: number,
): () => Promise<boolean> {
  let usedMs = 0;
  let periods = 0;
  return async () => {
    const before = usedMs;
    usedMs = await cpuMs(docker, id).catch(() => 0);
    return ++periods < maxPeriods && usedMs - before >= periodMs * busyShare;
  };
}

/** The CPU time that the container's processes have used. */
async function cpuMs(docker: Docker, id: string): Promise<number> {
  const once: { stream: false } = { stream: false };
  const sample = await docker.getContainer(id)
    .stats(Object.assign(once, { "one-shot": true }));
  return (sample.cpu_stats?.cpu_usage?.total_usage ?? 0) / 1e6;
}
