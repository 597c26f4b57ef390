// What the panes of the dashboard say, as lines.

import type { Activity } from "../../session/activity.ts";
import type { WatchedWorker } from "../../session/watch.ts";
import type { WorkerStats } from "../../worker/status.ts";
import { columns } from "../../std/text.ts";
import { binarySize, duration, span } from "../../std/units.ts";

export interface Overview {
  parent: string;
  startedAt: string;
  /** How long it took to be ready; null while it is not. */
  readyMs: number | null;
  chromadbPort: number;
  chromadbAnswers: boolean;
  /** Null where no pool runs. */
  pool: { warm: number; busy: number } | null;
}

/** The status pane. */
export function overviewLines(
  overview: Overview,
  workers: WatchedWorker[],
  nowMs: number,
): string[] {
  const { parent, startedAt, readyMs, pool } = overview;
  const up = span(nowMs - Date.parse(startedAt));
  const ready = readyMs === null
    ? "not ready yet"
    : `ready after ${duration(readyMs)}`;
  return columns([
    ["Parent", `${parent}, up ${up}, ${ready}`],
    [
      "ChromaDB",
      `${
        overview.chromadbAnswers ? "answers" : "does not answer"
      } on localhost:${overview.chromadbPort}`,
    ],
    [
      "Pool",
      pool === null ? "off" : `${pool.warm} warm, ${pool.busy} claimed`,
    ],
    ["Sessions", sessionsSummary(workers)],
  ]).split("\n");
}

const counted: [Activity, string][] = [
  ["waiting", "waiting for you"],
  ["working", "working"],
  ["idle", "idle"],
];

function sessionsSummary(workers: WatchedWorker[]): string {
  const parts = counted.flatMap(([activity, words]) => {
    const count = countOf(workers, activity);
    return count === 0 ? [] : [`${count} ${words}`];
  });
  return parts.join(", ") || "none";
}

export function countOf(workers: WatchedWorker[], activity: Activity): number {
  return workers.filter(({ said }) => said?.activity === activity).length;
}

/** The pane of the workers; those that wait come first. */
export function workerLines(workers: WatchedWorker[]): string[] {
  if (workers.length === 0) return ["No worker. Prefix w spawns one."];
  const waits = ({ said }: WatchedWorker) => said?.activity === "waiting";
  const rows = [...workers]
    .sort((a, b) => Number(waits(b)) - Number(waits(a)))
    .map(({ worker, said }) => [
      worker.name,
      worker.state === "running" ? said?.activity ?? "no session" : "paused",
      worker.project,
      said?.waitingFor ?? "",
    ]);
  return columns([["WORKER", "STATE", "PROJECT", ""], ...rows]).split("\n");
}

/** The pane of what they use. */
export function usageLines(stats: WorkerStats[]): string[] {
  const rows = stats.map(({ name, cpuPercent, memoryBytes, pids }) => [
    name,
    `${cpuPercent.toFixed(1)} %`,
    binarySize(memoryBytes),
    String(pids),
  ]);
  return columns([["WORKER", "CPU", "MEMORY", "PROCESSES"], ...rows])
    .split("\n");
}

/** No more lines than the pane has; the last then says how many there are. */
export function fitting(lines: string[], height: number): string[] {
  if (lines.length <= height) return lines;
  const shown = Math.max(height - 1, 0);
  return [...lines.slice(0, shown), `... ${lines.length - shown} more`];
}

/** Of the status pane, whose lines are always as many, and least of the prompt. */
const statusHeight = 4;
const promptHeight = 4;

/** Of status, workers, usage and prompt in a window, each below its title. */
export function paneHeights(window: number): number[] {
  const titles = 4;
  const prompt = Math.max(promptHeight, Math.floor(window / 6));
  const rest = window - titles - statusHeight - prompt;
  const usage = Math.floor(rest * 0.45);
  return [statusHeight, rest - usage, usage, prompt];
}
