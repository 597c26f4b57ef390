// Shows how far a long step is, for a terminal.

import type { Log } from "../../std/log.ts";
import { writtenBy } from "../../std/proc.ts";
import { megabytes } from "../../std/units.ts";

/** Less takes no time. */
export const minShownBytes = 20 * 1024 ** 2;

const periodMs = 500;

/** Shows how much of `bytes` a program writes, which `run` starts and tells the id of. */
export async function showWritten<T>(
  log: Log,
  { what, bytes }: { what: string; bytes: number },
  run: (started: (pid: number) => void) => Promise<T>,
): Promise<T> {
  let pid: number | undefined;
  const show = () => {
    if (pid === undefined || bytes < minShownBytes) return;
    const share = Math.min(writtenBy(pid) / bytes, 0.99);
    const percent = Math.floor(share * 100);
    log.progress?.(`${what}: ${percent} % of ${megabytes(bytes)}`);
  };
  const timer = setInterval(show, periodMs);
  try {
    return await run((started) => pid = started);
  } finally {
    clearInterval(timer);
    log.progress?.("");
  }
}

/** Shows the percents that git prints. */
export function showPercent(log: Log, what: string): (output: string) => void {
  return (output) => {
    const percent = /(\d+)% \(/.exec(output)?.[1];
    if (percent) log.progress?.(`${what}: ${percent} %`);
  };
}
