// How people see data move: what migrate and rollback share.

import type { Io } from "../cli/io.ts";
import type { Track } from "../migration/move.ts";
import { binarySize } from "../std/units.ts";

/** A line that stays at a terminal, and one every so often elsewhere. */
const drawMs = { terminal: 200, elsewhere: 5000 };

/** How long something took. */
export interface Phase {
  what: string;
  ms: number;
}

/**
 * Tells what begins, and of how much of it is done at which rate; `phases` gives
 * what there was, and ends the last.
 */
export function track(io: Io): Track & { phases: () => Phase[] } {
  const phases: Phase[] = [];
  let begunAt = performance.now();
  const endPhase = () => {
    const last = phases.at(-1);
    if (last?.ms === 0) last.ms = Math.round(performance.now() - begunAt);
    begunAt = performance.now();
    return phases;
  };
  const terminal = io.stderr.isTTY === true;
  let open = false;
  const endLine = () => {
    if (open) io.stderr.write("\n");
    open = false;
  };
  const log = (line: string) => {
    endLine();
    io.log(line);
  };
  const begin: Track["begin"] = (what) => {
    log(what);
    endPhase().push({ what, ms: 0 });
    const startedAt = performance.now();
    let toldAt = startedAt;
    let files = 0;
    let bytes = 0;
    let total = 0;
    return (moreFiles, moreBytes, expected = 0) => {
      total += expected;
      files += moreFiles;
      bytes += moreBytes;
      const now = performance.now();
      const every = terminal ? drawMs.terminal : drawMs.elsewhere;
      if (now - toldAt < every) return;
      toldAt = now;
      const rate = bytes / ((now - startedAt) / 1000);
      const line = `  ${files} of ${total} files, ${binarySize(bytes)}, ` +
        `${binarySize(rate)}/s`;
      if (!terminal) return io.log(line);
      open = true;
      io.stderr.write(`\r\x1b[K${line}`);
    };
  };
  return { log, begin, phases: endPhase };
}
