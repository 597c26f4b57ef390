// Whether this machine has the Linux kernel's /proc. macOS has none, and BSD's tools.

import { existsSync } from "node:fs";

let found: boolean | undefined;

export function hasProc(): boolean {
  found ??= existsSync("/proc/self/fd");
  return found;
}
