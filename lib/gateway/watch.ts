// What the processes of MCP servers use: memory, and processes that they start. Looked at
// from outside, with ps, so that it works where there are no control groups; whoever uses
// more than its server may is ended, with the reason.

import process from "node:process";
import { $ } from "zx/core";
import { binarySize } from "../std/units.ts";

/** While there are calls, and while there are none. */
const lookMs = 2000;
const quietLooks = 5;

/** A process that was started for a server, with all that it starts. */
export interface Watched {
  pid: number;
  /** Those with the same share one allowance: a worker's of one server. */
  allowance: string;
  maxMemoryBytes: number;
  maxProcesses: number;
  /** Ends it; the reason goes behind "it". */
  end(reason: string): void;
}

/** As ps has it. */
export interface Row {
  pid: number;
  parent: number;
  group: number;
  memoryBytes: number;
}

export interface Excess {
  watched: Watched;
  reason: string;
  /** All that belongs to it. */
  pids: number[];
}

export class Watch {
  readonly #watched = new Set<Watched>();
  #timer: ReturnType<typeof setInterval> | undefined;
  #calls = false;
  #looks = 0;

  /** Gives what ends the watching. */
  add(watched: Watched): () => void {
    this.#watched.add(watched);
    this.#timer ??= setInterval(() => void this.#look(), lookMs);
    this.#timer.unref?.();
    return () => {
      this.#watched.delete(watched);
      if (this.#watched.size > 0) return;
      clearInterval(this.#timer);
      this.#timer = undefined;
    };
  }

  /** Something is asked of a process. */
  called(): void {
    this.#calls = true;
  }

  async #look(): Promise<void> {
    this.#looks++;
    if (!this.#calls && this.#looks % quietLooks !== 0) return;
    this.#calls = false;
    const rows = await readRows().catch(() => []);
    for (const { watched, reason, pids } of findExcess(rows, this.#watched)) {
      // It may have left while ps ran.
      if (!this.#watched.has(watched)) continue;
      watched.end(reason);
      for (const pid of pids) kill(pid);
    }
  }
}

async function readRows(): Promise<Row[]> {
  const lines = await $({ quiet: true })`ps -A -o pid=,ppid=,pgid=,rss=`
    .lines();
  return lines.map((line) => {
    const [pid = 0, parent = 0, group = 0, kilobytes = 0] = line.trim()
      .split(/\s+/).map(Number);
    return { pid, parent, group, memoryBytes: kilobytes * 1024 };
  });
}

/** Of each allowance that is exceeded, the process that has most of it. */
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
  const shares = Map.groupBy(trees, ({ watched }) => watched.allowance);
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
    // It has just ended.
  }
}
