// Runs a script's main in this process, with its own streams and environment.

import process from "node:process";
import { PassThrough } from "node:stream";
import type { Main } from "../../lib/cli/cli.ts";
import { Io } from "../../lib/cli/io.ts";

export interface Ran {
  code: number;
  stdout: string;
  stderr: string;
}

/** There is no terminal and, unless `env` names one, no engine. */
export async function runMain(
  main: Main,
  argv: string[],
  { env = {}, stdin = "", columns }: {
    env?: NodeJS.ProcessEnv;
    stdin?: string;
    /** The width of the terminal that shows the output. @default no terminal */
    columns?: number;
  } = {},
): Promise<Ran> {
  const ran = { code: 0, stdout: "", stderr: "" };
  const input = new PassThrough();
  input.end(stdin);
  const stream = (name: "stdout" | "stderr") => ({
    isTTY: columns !== undefined,
    ...(columns === undefined ? {} : { columns }),
    write: (text: string | Uint8Array) => {
      ran[name] += String(text);
      return true;
    },
  });
  const io = new Io({
    env: {
      PATH: process.env["PATH"],
      DOCKER_HOST: "unix:///nonexistent/docker.sock",
      HAL9000_HOME: "/nonexistent/home",
      ...env,
    },
    stdin: input as unknown as NodeJS.ReadStream,
    stdout: stream("stdout"),
    stderr: stream("stderr"),
  });
  const { info } = console;
  // cac prints help on the console.
  console.info = (text: string) => void (ran.stdout += `${text}\n`);
  try {
    ran.code = await main(argv, io);
  } finally {
    console.info = info;
  }
  return ran;
}
