// Programs of the mover: coreutils and findutils, to which names are bytes.

import { Buffer } from "node:buffer";
import { $ } from "zx/core";
import { Failure } from "../../std/errors.ts";

/** Receives how many more files and bytes are done, and how many files are to come. */
export type Progress = (
  files: number,
  bytes: number,
  expected?: number,
) => void;

export interface RunOptions {
  input?: Buffer;
  /** Receives the output in pieces. */
  output?: (chunk: Buffer) => void;
  /** Receives the process id. */
  started?: (pid: number) => void;
}

/** Runs a program and returns what it printed; throws a Failure with its complaint. */
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
  // zx has the output as text alone.
  const chunks: Buffer[] = [];
  running.stdout.on("data", output ?? ((chunk: Buffer) => chunks.push(chunk)));
  const result = await running;
  if (result.exitCode === 0) return Buffer.concat(chunks);
  const [line] = result.stderr.trim().split("\n");
  const message = line || `${program} failed with ${result.exitCode}`;
  throw new Failure("failed", message);
}
