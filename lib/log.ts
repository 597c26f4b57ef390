// Progress goes to stderr: stdout belongs to a command's answer.

import process from "node:process";

export type Log = (line: string) => void;

export const logToStderr: Log = (line) => {
  process.stderr.write(`${line}\n`);
};

/** A log whose lines begin with UTC time, for what runs unattended. */
export function timedLog(log: Log): Log {
  return (line) => log(`${new Date().toISOString()} ${line}`);
}
