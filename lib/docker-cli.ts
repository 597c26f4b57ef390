// The docker command, for what it does better than a library: it hands a
// terminal through, with its size, its signals and the exit code.

import { spawn } from "node:child_process";
import { once } from "node:events";
import process from "node:process";
import { Failure } from "./errors.ts";

/** Runs docker at this terminal; gives its exit code. */
export async function runDocker(args: string[]): Promise<number> {
  // Ctrl-C is docker's to pass on; we stay to clean up behind it.
  const interrupts = process.listeners("SIGINT");
  process.removeAllListeners("SIGINT");
  process.on("SIGINT", () => {});
  try {
    const docker = spawn("docker", args, { stdio: "inherit" });
    const [code] = await once(docker, "exit");
    return code ?? 1;
  } catch (error) {
    throw new Failure("failed", "Cannot run docker", {
      cause: error,
      hint: "Install the Docker CLI, for instance: apt-get install docker.io",
    });
  } finally {
    process.removeAllListeners("SIGINT");
    for (const listener of interrupts) process.on("SIGINT", listener);
  }
}
