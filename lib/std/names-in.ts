// The names in a directory that no worker can write to; see directory.ts for others.

import { readdirSync } from "node:fs";

/** Empty if the directory is missing or cannot be read. */
export function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}
