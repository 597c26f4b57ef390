// Names a process, so that others can tell later whether it still runs.

import { readFileSync, readlinkSync } from "node:fs";
import process from "node:process";

/** This process: its pid namespace, pid and start time. "" where there is no /proc. */
export function processMark(): string {
  try {
    return [pidNamespace(), process.pid, startTime(process.pid)].join(".");
  } catch {
    return "";
  }
}

/** Whether the process has ended; false if that cannot be told from here. */
export function hasEnded(mark: string): boolean {
  const [namespace, pid, started] = /^(\d+)\.(\d+)\.(\d+)$/.exec(mark)
    ?.slice(1) ?? [];
  try {
    if (!pid || namespace !== pidNamespace()) return false;
    process.kill(Number(pid), 0);
    return startTime(Number(pid)) !== started; // the pid was used again
  } catch (error) {
    // Another user's process cannot be signalled, or seen at all; there may be no /proc.
    return (error as NodeJS.ErrnoException).code === "ESRCH";
  }
}

function pidNamespace(): string | undefined {
  return /\d+/.exec(readlinkSync("/proc/self/ns/pid"))?.[0];
}

/** PID (NAME) STATE ...: the 22nd field of proc_pid_stat(5). */
function startTime(pid: number): string | undefined {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
}
