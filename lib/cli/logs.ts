// Prints logs of containers, and kept logs of removed containers.

import { runDocker, runHere } from "../docker/docker-cli.ts";
import { wholeNumber } from "./options.ts";

export interface LogOptions {
  follow?: boolean;
  tail?: unknown;
}

/** Prints a container's log; returns docker's exit code. */
export async function printLog(
  container: string,
  { follow, tail }: LogOptions,
): Promise<number> {
  const lines = wholeNumber("--tail", tail);
  return await runDocker([
    "logs",
    ...(follow ? ["--follow"] : []),
    ...(lines === undefined ? [] : [`--tail=${lines}`]),
    container,
  ], { filtered: true });
}

/** Follows a log file with tail(1), which also waits for the file. */
export async function followFile(
  path: string,
  { tail }: LogOptions,
): Promise<number> {
  const lines = wholeNumber("--tail", tail) ?? "+1";
  return await runHere(["tail", "-F", "-n", `${lines}`, path], {
    filtered: true,
  });
}

/** The last lines of a kept log, or all lines. */
export function lastLines(text: string, { tail }: LogOptions): string {
  const count = wholeNumber("--tail", tail);
  const lines = text.split("\n");
  if (lines.at(-1) === "") lines.pop();
  const first = count === undefined ? 0 : Math.max(lines.length - count, 0);
  return lines.slice(first).join("\n");
}
