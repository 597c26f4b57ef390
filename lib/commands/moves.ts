// Shows the progress of migrate and rollback.

import type { Io } from "../cli/io.ts";
import type { Track } from "../migration/move.ts";
import { binarySize } from "../std/units.ts";

/** A terminal shows one line that is updated; other outputs get a line now and then. */
const drawMs = { terminal: 200, elsewhere: 5000 };

/** Duration of a phase. */
export interface Phase {
  what: string;
  ms: number;
}

/**
 * Logs the start of each phase, and its progress with the rate. `phases` ends the
 * last phase and returns them all.
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
    let reportedAt = startedAt;
    let files = 0;
    let bytes = 0;
    let total = 0;
    return (moreFiles, moreBytes, expected = 0) => {
      total += expected;
      files += moreFiles;
      bytes += moreBytes;
      const now = performance.now();
      const every = terminal ? drawMs.terminal : drawMs.elsewhere;
      if (now - reportedAt < every) return;
      reportedAt = now;
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
