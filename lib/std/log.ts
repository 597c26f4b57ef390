// Progress goes to stderr: stdout is for a command's result. A line may contain names or
// paths chosen by a worker, so control characters are escaped.

import process from "node:process";
import { printableLines } from "./text.ts";

export interface Log {
  (line: string): void;
  /** Shows on a terminal what goes on, in place of what it showed before; "" ends it. */
  progress?: (text: string) => void;
}

/**
 * Runs one step of longer work and shows it with its time. The step's own log is progress;
 * `detail` describes its result.
 */
export type RunStep = <T>(
  name: string,
  run: (log: Log) => Promise<T>,
  detail?: (result: T) => string,
) => Promise<T>;

/** Runs steps that are part of a larger one, and only logs. */
export const loggedSteps = (log: Log): RunStep => (_, run) => run(log);

export const logToStderr: Log = (line) => {
  process.stderr.write(`${printableLines(line)}\n`);
};

/** A log whose lines begin with the UTC time, for unattended programs. */
export function timedLog(log: Log): Log {
  return (line) => log(`${new Date().toISOString()} ${line}`);
}
