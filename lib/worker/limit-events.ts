// How often a worker has reached its limits. Read from the cgroup files of the engine's
// machine: nothing runs in the worker, and it cannot write to them.

import { Buffer } from "node:buffer";
import { open } from "node:fs/promises";
import type { Instance } from "../instance/instance.ts";
import { cgroups, insideParent } from "../instance/paths.ts";
import type { Log } from "../std/log.ts";

export interface LimitEvents {
  /** The limit of processes and threads; null for none. */
  pidsLimit: number | null;
  /** How often a process or thread was refused because of it. */
  pidsRefused: number;
  /** How often the memory limit was reached; usually the kernel then frees caches. */
  memoryReached: number;
  /** How many processes were killed because the memory was used up. */
  oomKills: number;
}

/** In case a file does not answer; reading all of them takes about a millisecond. */
const timeoutMs = 1000;

/**
 * Null if the worker does not run, or its cgroup is not visible: the engine is on another
 * machine, or uses an uncommon cgroup parent.
 */
export async function limitEvents(
  { self }: Pick<Instance, "self">,
  container: string,
  root = self ? insideParent.cgroups : cgroups,
): Promise<LimitEvents | null> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<null>((resolve) => {
    timer = setTimeout(() => resolve(null), timeoutMs);
  });
  try {
    return await Promise.race([late, readEvents(root, container)]);
  } finally {
    clearTimeout(timer);
  }
}

async function readEvents(
  root: string,
  container: string,
): Promise<LimitEvents | null> {
  const read = (controller: string, file: string) =>
    firstOf(directoriesOf(root, controller, container), file);
  const [pids, pidsMax, memory, failures, oom] = await Promise.all([
    read("pids", "pids.events"),
    read("pids", "pids.max"),
    // Version 2, then version 1.
    read("memory", "memory.events"),
    read("memory", "memory.failcnt"),
    read("memory", "memory.oom_control"),
  ]);
  if (pids === undefined) return null;
  return {
    pidsLimit: /^\d+$/m.test(pidsMax ?? "") ? Number(pidsMax) : null,
    pidsRefused: countIn(pids, "max"),
    memoryReached: memory === undefined
      ? Number(failures ?? 0)
      : countIn(memory, "max"),
    oomKills: countIn(memory ?? oom ?? "", "oom_kill"),
  };
}

/**
 * Where engines create a container's cgroup, with the drivers cgroupfs and systemd:
 * https://docs.docker.com/engine/containers/runmetrics/#find-the-cgroup-for-a-given-container
 */
function directoriesOf(root: string, controller: string, id: string): string[] {
  // Version 2 has one hierarchy, version 1 one for each controller.
  return [root, `${root}/${controller}`].flatMap((hierarchy) => [
    `${hierarchy}/docker/${id}`,
    `${hierarchy}/system.slice/docker-${id}.scope`,
    // Podman's
    `${hierarchy}/libpod_parent/libpod-${id}`,
    `${hierarchy}/machine.slice/libpod-${id}.scope`,
  ]);
}

async function firstOf(
  directories: string[],
  file: string,
): Promise<string | undefined> {
  for (const directory of directories) {
    const text = await beginningOf(`${directory}/${file}`);
    if (text !== undefined) return text;
  }
  return undefined;
}

async function beginningOf(path: string): Promise<string | undefined> {
  try {
    const file = await open(path);
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(4096));
      return buffer.subarray(0, bytesRead).toString("utf8");
    } finally {
      await file.close();
    }
  } catch {
    return undefined; // missing, or the worker has ended
  }
}

function countIn(text: string, key: string): number {
  return Number(new RegExp(`^${key} (\\d+)$`, "m").exec(text)?.[1] ?? 0);
}

/** Text for a worker that has reached its limits; empty if it has not. */
export function limitText(events: LimitEvents | null): string {
  if (events === null) return "";
  const { pidsRefused, pidsLimit, oomKills } = events;
  return [
    pidsRefused > 0
      ? `process limit ${pidsLimit ?? "of the machine"} reached`
      : "",
    oomKills > 0 ? `${oomKills} OOM-killed` : "",
  ].filter(Boolean).join(", ");
}

/** How to get more processes, in a worker that still runs and in new ones. */
export function pidsHint(
  name: string,
  { pidsLimit }: LimitEvents,
  { runs = true } = {},
): string {
  const higher = Math.max(2048, (pidsLimit ?? 0) * 2);
  const now = `docker update --pids-limit ${higher} ${name}; for new workers: `;
  return `${
    runs ? now : "Raise it: "
  }hal9000-spawn-worker --pids-limit N, or ` +
    `WORKER_PIDS_LIMIT=${higher} in config/hal9000.conf`;
}

/** Logs an error and a hint if the worker was refused processes. */
export function tellOfPids(
  { name, events, runs = true }: {
    name: string;
    events: LimitEvents | null;
    runs?: boolean;
  },
  log: Log,
): void {
  if (events === null || events.pidsRefused === 0) return;
  log(
    `error: "${name}" reached its limit of ${events.pidsLimit} processes and ` +
      "threads; programs in it may hang or fail",
  );
  log(pidsHint(name, events, { runs }));
}
