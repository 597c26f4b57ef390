// Formats the contents of the dashboard's panes.

import type { Activity } from "../../session/activity.ts";
import type { WatchedWorker } from "../../session/watch.ts";
import type { WorkerStats } from "../../worker/status.ts";
import { columns } from "../../std/text.ts";
import { binarySize, duration, span } from "../../std/units.ts";

export interface Overview {
  parent: string;
  startedAt: string;
  /** How long its start took; null while it is not ready. */
  readyMs: number | null;
  chromadbPort: number;
  chromadbAnswers: boolean;
  /** Null if the pool is off. */
  pool: { warm: number; busy: number } | null;
}

/** Lines of the status pane. */
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

/** Lines of the workers pane; waiting workers come first. */
export function workerLines(workers: WatchedWorker[]): string[] {
  if (workers.length === 0) return ["No workers. Press prefix w to spawn one."];
  const isWaiting = ({ said }: WatchedWorker) => said?.activity === "waiting";
  const rows = [...workers]
    .sort((a, b) => Number(isWaiting(b)) - Number(isWaiting(a)))
    .map(({ worker, said }) => [
      worker.name,
      worker.state === "running" ? said?.activity ?? "no session" : "paused",
      worker.project,
      said?.waitingFor ?? "",
    ]);
  return columns([["WORKER", "STATE", "PROJECT", ""], ...rows]).split("\n");
}

/** Lines of the resource usage pane. */
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

/** Cuts lines to the height of a pane; the last line then counts the others. */
export function fitLines(lines: string[], height: number): string[] {
  if (lines.length <= height) return lines;
  const shown = Math.max(height - 1, 0);
  return [...lines.slice(0, shown), `... ${lines.length - shown} more`];
}

/** The status pane has a fixed number of lines; the prompt has a minimum. */
const statusHeight = 4;
const promptHeight = 4;

/** Heights of the status, workers, usage and prompt panes, without their titles. */
export function paneHeights(window: number): number[] {
  const titles = 4;
  const prompt = Math.max(promptHeight, Math.floor(window / 6));
  const rest = window - titles - statusHeight - prompt;
  const usage = Math.floor(rest * 0.45);
  return [statusHeight, rest - usage, usage, prompt];
}
