// The docker command, for what it does better than a library: it hands a
// terminal through, with its size, its signals and the exit code.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { constants } from "node:os";
import process from "node:process";
import { Failure } from "./errors.ts";

const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

export interface RunOptions {
  /** Not cut short by another signal: a terminal that closes sends several. */
  afterwards?: () => Promise<void>;
  /** Besides our own environment. */
  env?: Record<string, string>;
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
  { afterwards, env = {} }: RunOptions = {},
): Promise<number> {
  let told: NodeJS.Signals | undefined;
  const listeners = signals.map((signal) =>
    [signal, process.listeners(signal)] as const
  );
  // They are docker's to act on and to pass on; we stay to clean up behind it.
  const passOn = (signal: NodeJS.Signals) => {
    // Ctrl-C reaches docker as it reaches us.
    if (signal === "SIGINT") return;
    told = signal;
    if (child.pid) process.kill(child.pid, signal);
  };
  for (const signal of signals) {
    process.removeAllListeners(signal);
    process.on(signal, passOn);
  }
  const child = spawn(file, args, {
    stdio: "inherit",
    env: { ...process.env, ...env },
  });
  try {
    const [code] = await once(child, "exit");
    await afterwards?.();
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
    for (const [signal, former] of listeners) {
      process.off(signal, passOn);
      for (const listener of former) process.on(signal, listener);
    }
  }
}
