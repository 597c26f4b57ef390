// A command inside a running container, its output taken.

import { Buffer } from "node:buffer";
import type { Docker } from "./docker.ts";
import { engineFailure } from "./docker-errors.ts";
import { withoutFrames } from "./streams.ts";

export interface ExecResult {
  exitCode: number;
  /** Of both streams. */
  output: string;
}

/** Runs a command as the container's user; throws where it cannot be run. */
export async function execIn(
  docker: Docker,
  id: string,
  command: string[],
  env: Record<string, string> = {},
): Promise<ExecResult> {
  try {
    const exec = await docker.getContainer(id).exec({
      Cmd: command,
      Env: Object.entries(env).map(([key, value]) => `${key}=${value}`),
      AttachStdout: true,
      AttachStderr: true,
    });
    const stream = await exec.start({});
    const chunks: Buffer[] = [];
    for await (const chunk of stream) chunks.push(chunk as Buffer);
    const { ExitCode } = await exec.inspect();
    const output = new TextDecoder().decode(
      withoutFrames(Buffer.concat(chunks)),
    );
    return { exitCode: ExitCode ?? 1, output };
  } catch (error) {
    throw engineFailure(error, `Cannot run ${command[0]} in the container`);
  }
}
