// Shows by the time of a file or directory that a command works with it, so that others can
// clean up after a killed one.

import { lstatSync, utimesSync } from "node:fs";

const beatMs = 1000;

/** Beats may be late on a busy machine. */
const staleMs = 10_000;

/** Touches a path from time to time, until the returned function is called. */
export function keepFresh(path: string): () => void {
  const beat = setInterval(() => {
    const now = new Date();
    try {
      utimesSync(path, now, now);
    } catch {
      // This program stood still for so long that another one has removed it.
    }
  }, beatMs);
  return () => clearInterval(beat);
}

/** Whether nothing has touched a path for a while; false if it is missing. */
export function isStale(path: string): boolean {
  const found = lstatSync(path, { throwIfNoEntry: false });
  return found !== undefined && Date.now() - found.mtimeMs >= staleMs;
}
