// Runs coreutils and findutils, which treat names as bytes.

import { Buffer } from "node:buffer";
import { $ } from "zx/core";
import { Failure } from "../../std/errors.ts";

/** Receives increments of the files and bytes done, and of the expected files. */
export type Progress = (
  files: number,
  bytes: number,
  expected?: number,
) => void;

export interface RunOptions {
  input?: Buffer;
  /** Receives the output in chunks. */
  output?: (chunk: Buffer) => void;
  /** Receives the process id. */
  started?: (pid: number) => void;
}

/** Runs a program; returns its output. Throws a Failure with its error message. */
export async function run(
  program: string,
  args: string[],
  { input, output, started }: RunOptions = {},
): Promise<Buffer> {
  const env = { PATH: "/usr/bin:/bin", LC_ALL: "C" };
  const options = { quiet: true, nothrow: true, env };
  const running = $(
    input ? { ...options, input } : options,
  )`exec ${program} ${args}`;
  started?.(running.pid ?? 0);
  // zx has the output only as text.
  const chunks: Buffer[] = [];
  running.stdout.on("data", output ?? ((chunk: Buffer) => chunks.push(chunk)));
  const result = await running;
  if (result.exitCode === 0) return Buffer.concat(chunks);
  const [line] = result.stderr.trim().split("\n");
  const message = line || `${program} failed with ${result.exitCode}`;
  throw new Failure("failed", message);
}
