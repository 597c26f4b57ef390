// The docker command, for what it does better than a library: it passes streams and
// signals on, and gives the exit code. At a terminal see terminal.ts.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { constants } from "node:os";
import process from "node:process";
import type { Readable } from "node:stream";
import { Failure } from "../std/errors.ts";
import { interceptSignals } from "../std/signals.ts";
import { TerminalFilter } from "../std/terminal-filter.ts";

export interface RunOptions {
  /** Besides our own environment. */
  env?: Record<string, string>;
  /** What it writes is a worker's: a terminal is given no more than lines of text. */
  filtered?: boolean;
}

/**
 * Runs docker at this terminal; gives its exit code, or 128 and the number of
 * the signal by which we were told to end.
 */
export async function runDocker(
  args: readonly string[],
  options: RunOptions = {},
): Promise<number> {
  return await runHere(["docker", ...args], options);
}

/** The same for another command. */
export async function runHere(
  [file = "", ...args]: readonly string[],
  { env = {}, filtered = false }: RunOptions = {},
): Promise<number> {
  let told: NodeJS.Signals | undefined;
  // They are docker's to act on and to pass on; we stay to clean up behind it.
  const restoreSignals = interceptSignals((signal) => {
    // Ctrl-C reaches docker as it reaches us.
    if (signal === "SIGINT") return;
    told = signal;
    if (child.pid) process.kill(child.pid, signal);
  });
  const through = (stream: NodeJS.WriteStream) =>
    filtered && stream.isTTY ? "pipe" : "inherit";
  const child = spawn(file, args, {
    stdio: ["inherit", through(process.stdout), through(process.stderr)],
    env: { ...process.env, ...env },
  });
  try {
    const passed = Promise.all([
      passOutput(child.stdout, process.stdout),
      passOutput(child.stderr, process.stderr),
    ]);
    const [code] = await once(child, "exit");
    await passed;
    if (told) return 128 + constants.signals[told];
    return code ?? 1;
  } catch (error) {
    throw new Failure("failed", `Cannot run ${file}`, {
      cause: error,
      ...(file === "docker"
        ? { hint: "Install the Docker CLI: apt-get install docker.io" }
        : {}),
    });
  } finally {
    restoreSignals();
  }
}

async function passOutput(
  from: Readable | null,
  to: NodeJS.WriteStream,
): Promise<void> {
  if (!from) return;
  const filter = new TerminalFilter("text");
  for await (const chunk of from) {
    if (!to.write(filter.write(chunk))) await once(to, "drain");
  }
  to.write(filter.end());
}
