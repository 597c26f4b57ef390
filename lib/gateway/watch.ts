// Monitors the memory and the child processes of MCP servers with ps, so that it
// works without control groups. A process that exceeds its server's limit is
// killed, with the reason.

import process from "node:process";
import { runProgram } from "../std/program.ts";
import { binarySize } from "../std/units.ts";

/** Interval of the checks; without calls, only every fifth check runs. */
const checkMs = 2000;
const idleChecks = 5;

/** A process that was started for a server, with all its children. */
export interface Watched {
  pid: number;
  /** Processes of the same group share the limits: those of one worker and server. */
  limitGroup: string;
  maxMemoryBytes: number;
  maxProcesses: number;
  /** Kills it; the reason follows the word "it". */
  end(reason: string): void;
}

/** A line of ps. */
export interface Row {
  pid: number;
  parent: number;
  group: number;
  memoryBytes: number;
}

export interface Excess {
  watched: Watched;
  reason: string;
  /** All processes of its tree. */
  pids: number[];
}

export class Watch {
  readonly #watched = new Set<Watched>();
  #timer: ReturnType<typeof setInterval> | undefined;
  #calls = false;
  #checks = 0;

  /** Returns a function that ends the monitoring. */
  add(watched: Watched): () => void {
    this.#watched.add(watched);
    this.#timer ??= setInterval(() => void this.#check(), checkMs);
    this.#timer.unref?.();
    return () => {
      this.#watched.delete(watched);
      if (this.#watched.size > 0) return;
      clearInterval(this.#timer);
      this.#timer = undefined;
    };
  }

  /** Records that a process has been called. */
  called(): void {
    this.#calls = true;
  }

  async #check(): Promise<void> {
    this.#checks++;
    if (!this.#calls && this.#checks % idleChecks !== 0) return;
    this.#calls = false;
    const rows = await readRows().catch(() => []);
    for (const { watched, reason, pids } of findExcess(rows, this.#watched)) {
      // It may have ended while ps ran.
      if (!this.#watched.has(watched)) continue;
      watched.end(reason);
      for (const pid of pids) kill(pid);
    }
  }
}

async function readRows(): Promise<Row[]> {
  const { stdout } = await runProgram([
    "ps",
    "-A",
    "-o",
    "pid=,ppid=,pgid=,rss=",
  ]);
  const lines = stdout.trim().split("\n");
  return lines.map((line) => {
    const [pid = 0, parent = 0, group = 0, kilobytes = 0] = line.trim()
      .split(/\s+/).map(Number);
    return { pid, parent, group, memoryBytes: kilobytes * 1024 };
  });
}

/** For each exceeded limit, the process that uses most of it. */
export function findExcess(rows: Row[], watched: Iterable<Watched>): Excess[] {
  const children = Map.groupBy(rows, ({ parent }) => parent);
  const groups = Map.groupBy(rows, ({ group }) => group);
  const trees = [...watched].map((one) => {
    const found = new Set<Row>(groups.get(one.pid));
    for (const { pid } of found) {
      for (const child of children.get(pid) ?? []) found.add(child);
    }
    const memoryBytes = [...found]
      .reduce((sum, row) => sum + row.memoryBytes, 0);
    const pids = [...found].map(({ pid }) => pid);
    return { watched: one, memoryBytes, pids };
  });
  const shares = Map.groupBy(trees, ({ watched }) => watched.limitGroup);
  return [...shares.values()].flatMap((share) => {
    const [{ watched }] = share as [typeof trees[number]];
    const memory = share.reduce((sum, tree) => sum + tree.memoryBytes, 0);
    const count = share.reduce((sum, { pids }) => sum + pids.length, 0);
    if (memory > watched.maxMemoryBytes) {
      share.sort((a, b) => b.memoryBytes - a.memoryBytes);
      const reason = `used ${binarySize(memory)} of memory; "memory" allows ` +
        binarySize(watched.maxMemoryBytes);
      return [{ ...share[0] as typeof share[number], reason }];
    }
    if (count <= watched.maxProcesses) return [];
    share.sort((a, b) => b.pids.length - a.pids.length);
    const reason = `had ${count} processes; "processes" allows ` +
      watched.maxProcesses;
    return [{ ...share[0] as typeof share[number], reason }];
  });
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // The process has just ended.
  }
}
