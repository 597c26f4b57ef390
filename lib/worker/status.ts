// Status of the workers: their limits, resource usage, and how recent ones ended.

import { constants } from "node:os";
import type { Docker } from "../docker/docker.ts";
import { inspectContainer } from "../docker/docker.ts";
import { type EngineInfo, engineInfo } from "../docker/engine-info.ts";
import { statusOf } from "../docker/docker-errors.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { type LimitEvents, limitEvents, limitText } from "./limit-events.ts";
import { withoutNetwork, type WorkerState } from "./workers.ts";
import {
  type EndedRecord,
  readEndedRecords,
  readRecord,
} from "../instance/record.ts";
import { binarySize } from "../std/units.ts";
import { listWorkers } from "./workers.ts";

export interface WorkerStatus {
  name: string;
  summary: string;
  project: string;
  network: WorkerState["network"];
  startedAt: string;
  /** Limits; 0 for no limit. */
  memoryBytes: number;
  cpus: number;
  pids: number;
  oomKilled: boolean;
  /** Null if it does not run, or they cannot be read. */
  limitEvents: LimitEvents | null;
}

export interface EndedWorker {
  name: string;
  summary: string;
  project: string;
  endedAt: string;
  exitCode: number | null;
  oomKilled: boolean;
}

export interface WorkersStatus {
  workers: WorkerStatus[];
  ended: EndedWorker[];
}

export interface WorkerStats {
  name: string;
  /** Null, like the next ones, if the engine does not measure it by container. */
  cpuPercent: number | null;
  memoryBytes: number | null;
  /** Processes and threads. */
  pids: number | null;
  /** Null if they cannot be read. */
  limitEvents: LimitEvents | null;
}

type Usage = Omit<WorkerStats, "name" | "limitEvents">;

/** Timeout for one sample: the engine takes two readings, one second apart. */
const sampleTimeoutMs = 5000;

/** Number of ended workers to show. */
const maxEnded = 10;

export async function workersStatus(
  instance: Instance,
): Promise<WorkersStatus> {
  const listed = await listWorkers(instance);
  const offline = await withoutNetwork(instance, listed);
  const workers = await Promise.all(
    listed.map(({ id, status, name, network }) =>
      statusOfWorker(
        instance,
        { id, network },
        offline.has(name)
          ? `${status}, its network has ended`
          : status || "Created",
      )
    ),
  );
  return {
    workers: workers.filter((worker) => worker !== undefined),
    ended: readEndedRecords(instance).slice(0, maxEnded).map((record) => ({
      name: record.worker,
      summary: endSummary(record),
      project: record.project.path,
      endedAt: record.end.at,
      exitCode: record.end.exitCode,
      oomKilled: record.oomKilledAt !== null,
    })),
  };
}

async function statusOfWorker(
  instance: Instance,
  { id, network }: Pick<WorkerState, "id" | "network">,
  summary: string,
): Promise<WorkerStatus | undefined> {
  const container = await inspectContainer(instance.docker, id);
  if (!container) return undefined; // removed in the meantime
  const { Memory = 0, NanoCpus = 0, PidsLimit } = container.HostConfig;
  const name = container.Name.slice(1);
  const record = readRecord(instance, name);
  const oomKilled = container.State.OOMKilled || record?.oomKilledAt != null;
  const events = await limitEvents(instance, id);
  return {
    name,
    summary: [
      summary,
      oomKilled ? oomText(Memory) : "",
      limitText(events),
    ].filter(Boolean).join(", "),
    project: record?.project.path ?? "",
    network,
    startedAt: container.State.StartedAt,
    memoryBytes: Memory,
    cpus: NanoCpus / 1e9,
    pids: PidsLimit ?? 0,
    oomKilled,
    limitEvents: events,
  };
}

function endSummary(record: EndedRecord): string {
  const { exitCode } = record.end;
  const how = exitCode === null
    ? "removed"
    : exitCode === 128 + constants.signals.SIGTERM
    ? "stopped"
    : `exit code ${exitCode}`;
  return record.oomKilledAt === null
    ? how
    : `${how}, ${oomText(record.memoryBytes)}`;
}

/** Text for an OOM kill; without a limit the machine itself ran out of memory. */
export function oomText(memoryBytes: number | null): string {
  return memoryBytes
    ? `OOM-killed at ${binarySize(memoryBytes)}`
    : "OOM-killed: the machine had no memory left";
}

/**
 * Logs an error and `hint` if the worker has run out of memory after `since`, in
 * milliseconds since 1970: otherwise the user only sees that a process has exited.
 * `killed` tells that the kernel counts more kills since then; the engine notes them later,
 * and it also notes those of a worker whose files are not visible here. Returns whether it
 * has run out of memory.
 */
export async function tellOfMemory(
  instance: Instance,
  { id, name }: { id: string; name: string },
  { since, killed = false, hint }: {
    since: number;
    killed?: boolean;
    hint: string;
  },
  log: Log,
): Promise<boolean> {
  const container = await inspectContainer(instance.docker, id);
  if (!container) return false;
  if (!killed) {
    if (!container.State.OOMKilled) return false;
    const noted = readRecord(instance, name, log)?.oomKilledAt;
    // OOMKilled is never reset, and Docker's event times are whole seconds.
    if (noted && Date.parse(noted) < since - 1000) return false;
  }
  const limit = container.HostConfig.Memory;
  log(
    limit
      ? `error: "${name}" ran out of memory at its limit of ${
        binarySize(limit)
      }; a process was killed`
      : `error: "${name}" was killed: the machine ran out of memory`,
  );
  log(hint);
  return true;
}

export async function workerStats(instance: Instance): Promise<WorkerStats[]> {
  const running = (await listWorkers(instance))
    .filter(({ state }) => state === "running");
  const { measures } = await engineInfo(instance.docker);
  const stats = await Promise.all(running.map(async ({ id, name }) => {
    const timeout = AbortSignal.timeout(sampleTimeoutMs);
    const once: { stream: false } = { stream: false };
    try {
      const sample = await instance.docker.getContainer(id)
        .stats(Object.assign(once, { abortSignal: timeout }));
      // If the worker exits in the meantime, the sample is empty or incomplete.
      const isComplete = sample.cpu_stats?.cpu_usage && sample.precpu_stats;
      return isComplete
        ? {
          name,
          ...usage(sample, measures),
          limitEvents: await limitEvents(instance, id),
        }
        : undefined;
    } catch (error) {
      if (timeout.aborted || statusOf(error) === 404) return undefined;
      throw error;
    }
  }));
  return stats.filter((sample) => sample !== undefined);
}

/**
 * Computed like `docker stats`: CPU time between two samples, in percent of one CPU;
 * memory without the inactive page cache.
 * https://docs.docker.com/reference/cli/docker/container/stats/
 */
export function usage(
  sample: Docker.ContainerStats,
  measures: EngineInfo["measures"],
): Usage {
  const { cpu_stats: now, precpu_stats: before, memory_stats: memory } = sample;
  const cpu = now.cpu_usage.total_usage - before.cpu_usage.total_usage;
  const system = now.system_cpu_usage - (before.system_cpu_usage ?? 0);
  const detail = memory.stats as Record<string, number> | undefined;
  const cache = detail?.["total_inactive_file"] ?? detail?.["inactive_file"] ??
    0;
  const cpus = now.online_cpus ?? 1;
  const percent = system > 0 ? cpu / system * cpus * 100 : 0;
  return {
    cpuPercent: measures.cpus ? percent : null,
    memoryBytes: measures.memory
      ? Math.max((memory.usage ?? 0) - cache, 0)
      : null,
    pids: measures.pids ? sample.pids_stats?.current ?? 0 : null,
  };
}
