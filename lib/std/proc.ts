// Whether this machine has the Linux kernel's /proc. macOS has none, and BSD's tools.

import { existsSync, readFileSync } from "node:fs";

let found: boolean | undefined;

export function hasProc(): boolean {
  found ??= existsSync("/proc/self/fd");
  return found;
}

/**
 * Bytes that a process and the programs that it has started have written, see
 * proc_pid_io(5); 0 if it has ended.
 */
export function writtenBy(pid: number): number {
  const read = (path: string) => {
    try {
      return readFileSync(`/proc/${pid}/${path}`, "utf8");
    } catch {
      return "";
    }
  };
  const io = read("io");
  // cp copies up to 2 GB with one call, which only the second one counts before it ends.
  let bytes = Math.max(
    ...[/^wchar: (\d+)$/m, /^write_bytes: (\d+)$/m]
      .map((field) => Number(field.exec(io)?.[1] ?? 0)),
  );
  for (const child of read(`task/${pid}/children`).split(" ").filter(Boolean)) {
    bytes += writtenBy(Number(child));
  }
  return bytes;
}
