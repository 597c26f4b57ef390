// Runs programs without a shell. zx starts bash, whose settings (BASH_ENV, exported
// functions) could change what is removed or measured: see ADR 23.

import { spawn } from "node:child_process";
import { once } from "node:events";
import process from "node:process";
import type { Readable } from "node:stream";

export interface ProgramResult {
  /** Null if a signal ended the program. */
  exitCode: number | null;
  stdout: string;
  /** The beginning of its errors. */
  stderr: string;
}

export interface ProgramOptions {
  input?: string;
  /** Of input and output: `latin1` keeps bytes that are not UTF-8. @default utf8 */
  encoding?: "utf8" | "latin1";
  /** Then the program is killed, with those that it has started. */
  timeoutMs?: number | undefined;
  /** @default that of this process */
  env?: NodeJS.ProcessEnv;
  started?: (pid: number) => void;
  /** Of the output; the rest of it is left out. */
  maxLength?: number;
}

/** Throws if the program cannot be started. Messages are in English. */
export async function runProgram(
  [file = "", ...args]: readonly string[],
  options: ProgramOptions = {},
): Promise<ProgramResult> {
  const { input = "", encoding = "utf8", timeoutMs, maxLength = Infinity } =
    options;
  const { env = process.env } = options;
  const child = spawn(file, args, {
    env: { ...env, LC_ALL: "C" },
    // A group of its own: those that it has started hold its output open.
    detached: timeoutMs !== undefined,
  });
  const ended = once(child, "close");
  if (child.pid !== undefined) options.started?.(child.pid);
  const kill = () => killGroup(child.pid);
  const late = timeoutMs === undefined
    ? undefined
    : setTimeout(kill, timeoutMs);
  // A group of its own gets no signal of the terminal.
  if (timeoutMs !== undefined) process.once("exit", kill);
  child.stdin.on("error", () => {}); // it may end before it has read everything
  child.stdin.end(input, encoding);
  try {
    const [stdout, stderr, [exitCode]] = await Promise.all([
      textOf(child.stdout, maxLength, encoding),
      textOf(child.stderr, maxErrorLength, encoding),
      ended,
    ]);
    return { exitCode, stdout, stderr };
  } finally {
    clearTimeout(late);
    process.off("exit", kill);
  }
}

function killGroup(pid: number | undefined): void {
  try {
    if (pid !== undefined) process.kill(-pid, "SIGKILL");
  } catch {
    // It has just ended.
  }
}

/** rm prints a line for each file that it cannot remove. */
const maxErrorLength = 500;

async function textOf(
  stream: Readable,
  maxLength: number,
  encoding: "utf8" | "latin1",
): Promise<string> {
  stream.setEncoding(encoding);
  let text = "";
  for await (const chunk of stream) {
    if (text.length < maxLength) text += chunk;
  }
  return text.slice(0, maxLength);
}
