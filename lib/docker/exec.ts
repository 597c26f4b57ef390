// Runs a command in a running container and captures its output.

import { Buffer } from "node:buffer";
import type { Docker } from "./docker.ts";
import { engineFailure } from "./docker-errors.ts";
import { Failure } from "../std/errors.ts";
import { withoutFrames } from "./streams.ts";

export interface ExecResult {
  exitCode: number;
  /** stdout and stderr together. */
  output: string;
}

/** Limits for programs of a worker that never exit or write without end. */
const maxBytes = 4 * 1024 ** 2;
const defaultMs = 15_000;

/**
 * Runs a command as the container's user. Throws a Failure if it cannot be run, takes
 * longer than `timeoutMs`, or produces too much output.
 */
export async function execIn(
  docker: Docker,
  id: string,
  command: string[],
  { env = {}, timeoutMs = defaultMs }: {
    env?: Record<string, string>;
    timeoutMs?: number;
  } = {},
): Promise<ExecResult> {
  const late = AbortSignal.timeout(timeoutMs);
  const refuse = (why: string) =>
    new Failure(
      "failed",
      `${command[0]} in container ${id.slice(0, 12)} ${why}`,
      {
        hint: "The container may be broken. If it is a worker, stop it: " +
          `claudy stop ${id.slice(0, 12)}`,
      },
    );
  try {
    const exec = await docker.getContainer(id).exec({
      Cmd: command,
      Env: Object.entries(env).map(([key, value]) => `${key}=${value}`),
      AttachStdout: true,
      AttachStderr: true,
    });
    const stream = await exec.start({});
    const cut = () => stream.destroy();
    late.addEventListener("abort", cut);
    const chunks: Buffer[] = [];
    let bytes = 0;
    try {
      for await (const chunk of stream) {
        bytes += (chunk as Buffer).length;
        if (bytes > maxBytes) throw refuse("produced too much output");
        chunks.push(chunk as Buffer);
      }
    } catch (error) {
      if (!late.aborted) throw error;
    } finally {
      late.removeEventListener("abort", cut);
      stream.destroy();
    }
    if (late.aborted) {
      throw refuse(`did not exit within ${timeoutMs / 1000} s`);
    }
    const { ExitCode } = await exec.inspect();
    const output = new TextDecoder().decode(
      withoutFrames(Buffer.concat(chunks)),
    );
    return { exitCode: ExitCode ?? 1, output };
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw engineFailure(error, `Cannot run ${command[0]} in the container`);
  }
}

/**
 * The names of the processes in a container, read by ps on the engine's machine: no
 * program of the container is run.
 */
export async function processNames(
  docker: Docker,
  id: string,
): Promise<string[]> {
  const { Processes }: { Processes: string[][] } = await docker
    .getContainer(id).top({ ps_args: "-eo pid,comm" });
  return Processes.map((columns) => columns.at(-1) ?? "");
}
