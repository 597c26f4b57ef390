// Progress goes to stderr: stdout belongs to a command's answer. A line may hold a
// name or a path that a worker chose.

import process from "node:process";
import { printableLines } from "./text.ts";

export type Log = (line: string) => void;

export const logToStderr: Log = (line) => {
  process.stderr.write(`${printableLines(line)}\n`);
};

/** A log whose lines begin with UTC time, for what runs unattended. */
export function timedLog(log: Log): Log {
  return (line) => log(`${new Date().toISOString()} ${line}`);
}
