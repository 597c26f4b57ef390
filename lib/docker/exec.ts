// Runs a command in a running container and captures or streams its output.

import { Buffer } from "node:buffer";
import { Duplex } from "node:stream";
import type { Docker } from "./docker.ts";
import { engineFailure } from "./docker-errors.ts";
import { Failure } from "../std/errors.ts";
import { FrameReader, withoutFrames } from "./streams.ts";

export interface ExecResult {
  exitCode: number;
  /** stdout and stderr together. */
  output: string;
}

/** Limits for programs of a worker that never exit or write without end. */
const maxBytes = 4 * 1024 ** 2;
const defaultMs = 15_000;

/**
 * Runs a command. Throws a Failure if it cannot be run, takes
 * longer than `timeoutMs`, or produces too much output.
 */
export async function execIn(
  docker: Docker,
  id: string,
  command: string[],
  { env = {}, timeoutMs = defaultMs, user }: {
    env?: Record<string, string>;
    timeoutMs?: number;
    /** @default the container's */
    user?: string;
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
      ...(user === undefined ? {} : { User: user }),
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

/**
 * Runs a command in a container, and returns its input and output as one stream. The
 * stream fails with the code that the command writes to its standard error, or with
 * ECONNRESET if the command cannot be run.
 */
export function execStream(
  open: () => Docker | Promise<Docker>,
  id: string,
  command: string[],
): Duplex {
  return new ExecStream(async () => {
    const exec = await (await open()).getContainer(id).exec({
      Cmd: command,
      AttachStdin: true,
      AttachStdout: true,
      AttachStderr: true,
    });
    return await exec.start({ hijack: true, stdin: true });
  });
}

function connectionError(code: string, cause?: unknown): Error {
  const error = new Error(`Cannot connect in the container: ${code}`, {
    cause,
  });
  return Object.assign(error, { code });
}

class ExecStream extends Duplex {
  readonly #start: () => Promise<Duplex>;
  readonly #frames = new FrameReader();
  #connection: Duplex | undefined;

  constructor(start: () => Promise<Duplex>) {
    super();
    this.#start = start;
  }

  override _construct(done: (error?: Error | null) => void): void {
    this.#start().then((connection) => {
      this.#connection = connection;
      connection.on("error", (error) => this.destroy(error));
      connection.on("end", () => this.push(null));
      connection.on("close", () => this.push(null));
      connection.on("data", (bytes: Uint8Array) => this.#read(bytes));
      done();
    }, (error) => done(connectionError("ECONNRESET", error)));
  }

  override _read(): void {
    this.#connection?.resume();
  }

  override _write(
    bytes: Uint8Array,
    _encoding: string,
    done: (error?: Error | null) => void,
  ): void {
    this.#connection?.write(bytes, done);
  }

  override _final(done: () => void): void {
    this.#connection?.end(done);
  }

  override _destroy(
    error: Error | null,
    done: (error: Error | null) => void,
  ): void {
    this.#connection?.destroy();
    done(error);
  }

  #read(bytes: Uint8Array): void {
    for (const { stream, payload } of this.#frames.add(bytes)) {
      if (stream === "stderr") {
        return void this.destroy(connectionError(String(payload)));
      }
      if (!this.push(payload)) this.#connection?.pause();
    }
  }
}
