// Runs the docker command where it is better than a library: it forwards streams and
// signals, and returns the exit code. For interactive terminals see terminal.ts.

// Not zx: docker takes over this terminal and its signals.
import { Buffer } from "node:buffer";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { constants } from "node:os";
import process from "node:process";
import type { Readable } from "node:stream";
import { endpointOf, sshTarget } from "./endpoint.ts";
import { Failure } from "../std/errors.ts";
import { linesOf } from "../std/lines.ts";
import { isAtLeast } from "../std/text.ts";
import { interceptSignals } from "../std/signals.ts";
import { TerminalFilter } from "../std/terminal-filter.ts";

export interface RunOptions {
  /** Added to the environment of this process. */
  env?: Record<string, string>;
  /** The output comes from a worker: a terminal gets only filtered lines of text. */
  filtered?: boolean;
  /** Reads the output by line; returns what is printed for it, without a newline. */
  onLine?: ((line: string) => string | undefined) | undefined;
  /** Ctrl-C ends the command without a trace in its exit code, as it does docker exec. */
  endsOnInterrupt?: boolean;
}

/**
 * Runs docker at this terminal. Returns its exit code, or 128 plus the number of the
 * signal that ended it or this process.
 */
export async function runDocker(
  args: readonly string[],
  options: RunOptions = {},
): Promise<number> {
  const given = { ...process.env, ...options.env };
  const target = sshTarget(endpointOf(given));
  if (!target) return await runLocally(args, options);
  const { bridgeEngine } = await import("./ssh.ts");
  const { host, close } = await bridgeEngine(target, given);
  try {
    const env = { ...options.env, DOCKER_HOST: host };
    return await runLocally(args, { ...options, env });
  } finally {
    close();
  }
}

async function runLocally(
  args: readonly string[],
  options: RunOptions,
): Promise<number> {
  const code = await runHere(["docker", ...args], options);
  // Other codes are those of commands in containers.
  if (code !== 1 && code !== 125) return code;
  const env = { ...process.env, ...options.env };
  const cli = await cliVersion(env);
  if (cli && !cli.works) {
    const { connect } = await import("./connection.ts");
    const engine = await (await connect(env)).version().catch(() => undefined);
    const failure = engine && cliFailure(cli, engine, env);
    if (failure) throw failure;
  }
  return code;
}

export interface CliVersion {
  version: string;
  /** What it negotiated with the engine, or was given in DOCKER_API_VERSION. */
  api: string;
  /** Whether the engine has answered it. */
  works: boolean;
}

/** The version of the docker command; undefined if there is none. */
export async function cliVersion(
  env: NodeJS.ProcessEnv,
): Promise<CliVersion | undefined> {
  const format = "{{.Client.Version}} {{.Client.APIVersion}}";
  const child = spawn("docker", ["version", "--format", format], {
    env,
    stdio: ["ignore", "pipe", "ignore"],
  });
  let text = "";
  child.stdout.on("data", (bytes) => text += bytes);
  const code = await once(child, "close").then(([code]) => code, () => -1);
  const [version = "", api = ""] = text.trim().split(" ");
  return api === "" ? undefined : { version, api, works: code === 0 };
}

/** Why the docker command cannot use the engine; undefined if it can. */
export function cliFailure(
  { version, api }: CliVersion,
  { Version, ApiVersion, MinAPIVersion = "" }: {
    Version: string;
    ApiVersion: string;
    MinAPIVersion?: string | undefined;
  },
  env: NodeJS.ProcessEnv,
): Failure | undefined {
  if (isAtLeast(api, MinAPIVersion) && isAtLeast(ApiVersion, api)) {
    return undefined;
  }
  return new Failure(
    "engine",
    `The docker command ${version} has API ${api}, and engine ${Version} ` +
      `accepts ${MinAPIVersion} to ${ApiVersion}`,
    {
      hint: env["DOCKER_API_VERSION"]
        ? "Let it choose: unset DOCKER_API_VERSION"
        : "Install a newer one: https://docs.docker.com/engine/install/",
    },
  );
}

/** Like runDocker(), for any command. */
export async function runHere(
  [file = "", ...args]: readonly string[],
  options: RunOptions = {},
): Promise<number> {
  const { env = {}, filtered = false, endsOnInterrupt = false } = options;
  const { onLine } = options;
  let ended: NodeJS.Signals | undefined;
  // docker handles and forwards signals; this process stays alive to clean up afterwards.
  const restoreSignals = interceptSignals((signal) => {
    const isInterrupt = signal === "SIGINT";
    if (!isInterrupt || endsOnInterrupt) ended = signal;
    // Ctrl-C reaches docker directly.
    if (!isInterrupt) pass(child, signal);
  });
  const through = (stream: NodeJS.WriteStream) =>
    filtered && stream.isTTY ? "pipe" : "inherit";
  const child = spawn(file, args, {
    stdio: [
      "inherit",
      onLine ? "pipe" : through(process.stdout),
      through(process.stderr),
    ],
    env: { ...process.env, ...env },
  });
  try {
    const passed = Promise.all([
      passOutput(child.stdout, process.stdout, onLine),
      passOutput(child.stderr, process.stderr),
    ]);
    const [code, killed] = await once(child, "exit") as [
      number | null,
      NodeJS.Signals | null,
    ];
    await passed;
    const signal = ended ?? killed;
    return signal ? 128 + constants.signals[signal] : code ?? 1;
  } catch (error) {
    if (error instanceof Failure) throw error;
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

/** The command may have ended already, if the signal was sent to it as well. */
function pass({ pid }: ChildProcess, signal: NodeJS.Signals): void {
  try {
    if (pid) process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

async function passOutput(
  from: Readable | null,
  to: NodeJS.WriteStream,
  onLine?: RunOptions["onLine"],
): Promise<void> {
  if (!from) return;
  const filter = new TerminalFilter("text");
  for await (const bytes of onLine ? mapLines(from, onLine) : from) {
    const shown = to.isTTY ? filter.write(bytes) : bytes;
    if (!to.write(shown)) await once(to, "drain");
  }
  if (to.isTTY) to.write(filter.end());
}

/** Longer than any answer. */
const maxLineBytes = 64 * 1024 ** 2;

async function* mapLines(
  from: Readable,
  onLine: NonNullable<RunOptions["onLine"]>,
): AsyncGenerator<Uint8Array> {
  for await (const line of linesOf(from, maxLineBytes)) {
    const shown = onLine(line);
    if (shown !== undefined) yield Buffer.from(`${shown}\n`);
  }
}
