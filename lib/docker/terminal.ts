// Connects this terminal to a command in a container or to a container. The output is
// filtered, because every process of the worker can write to the container's terminal.

import { once } from "node:events";
import { constants } from "node:os";
import process from "node:process";
import { type Docker, inspectContainer } from "./docker.ts";
import { engineFailure } from "./docker-errors.ts";
import { execIn } from "./exec.ts";
import { terminalScript, terminalVariables } from "./terminfo.ts";
import { hasEnded, processMark } from "../std/process-mark.ts";
import { interceptSignals } from "../std/signals.ts";
import { TerminalFilter } from "../std/terminal-filter.ts";
import { waitFor } from "../std/wait.ts";

/** How long the engine may take to report that the command has exited. */
const settleMs = 1000;

/** In the engine's format. */
interface Size {
  h: number;
  w: number;
}

interface Connection {
  /** The socket of the upgraded request. */
  stream: NodeJS.ReadWriteStream & { destroy(): void };
  resize(size: Size): Promise<unknown>;
}

/**
 * Runs a command, and names a file with its pid, to end it later: the engine does not end
 * it when this terminal is closed.
 */
const startScript = `echo $$ >"/tmp/$0"
${terminalScript}
exec "$@"`;

/** Runs a command until it exits or this terminal closes; returns its exit code. */
export async function execAtTerminal(
  docker: Docker,
  id: string,
  { command, variables = {}, env }: {
    command: readonly string[];
    variables?: Record<string, string>;
    /** The caller's environment. */
    env: NodeJS.ProcessEnv;
  },
): Promise<number> {
  const client = `${processMark()}-${crypto.randomUUID()}`;
  try {
    await endLeftClients(docker, id);
    const exec = await docker.getContainer(id).exec({
      Cmd: ["sh", "-c", startScript, client, ...command],
      Env: Object.entries({ ...terminalVariables(env), ...variables }).map((
        [name, value],
      ) => `${name}=${value}`),
      AttachStdin: true,
      AttachStdout: true,
      AttachStderr: true,
      Tty: true,
    });
    const stream = await exec.start({ hijack: true, stdin: true, Tty: true });
    // A closing terminal sends several signals, and the second must not end this process
    // before it has ended the client. Up to here there is no client to end.
    const restoreSignals = interceptSignals(() => {});
    const signal = await connectTerminal({
      stream: stream as Connection["stream"],
      resize: (size) => exec.resize(size),
    }).finally(() => endClient(docker, id, client)).finally(restoreSignals);
    if (signal) return 128 + constants.signals[signal];
    return await exitCodeOf(exec);
  } catch (error) {
    throw engineFailure(error, "Cannot use this terminal in the container");
  }
}

export interface Client {
  /** Of execAtTerminal(). */
  name: string;
  command: string[];
  /** Whether the process whose terminal it shows was killed. */
  isLeft: boolean;
}

/** More than anyone opens in one container. */
const maxClients = 50;

/** The commands at terminals that run in a container, from the engine's execs. */
export async function terminalClients(
  docker: Docker,
  id: string,
): Promise<Client[]> {
  const { ExecIDs } = await inspectContainer(docker, id) ?? {};
  const found = await Promise.all(
    (ExecIDs ?? []).slice(0, maxClients).map(async (exec) => {
      const exists = await docker.getExec(exec).inspect().catch(() =>
        undefined
      );
      if (!exists?.Running || !exists.ProcessConfig.tty) return undefined;
      const command = exists.ProcessConfig.arguments;
      const [, , name = ""] = command;
      const [mark = ""] = name.split("-");
      return { name, command, isLeft: hasEnded(mark) };
    }),
  );
  return found.filter((client) => client !== undefined);
}

/** Ends the clients of killed processes: the engine keeps them. */
async function endLeftClients(docker: Docker, id: string): Promise<void> {
  const left = (await terminalClients(docker, id))
    .filter(({ isLeft }) => isLeft);
  await Promise.all(left.map(({ name }) => endClient(docker, id, name)));
}

/** Returns 0 if the command still runs: the user detached with the engine's keys. */
async function exitCodeOf(exec: Docker.Exec): Promise<number> {
  let found: Docker.ExecInspectInfo | undefined;
  await waitFor(async () => {
    found = await exec.inspect();
    return !found.Running;
  }, { for: "the command to end", timeoutMs: settleMs }).catch(() => {});
  return found?.ExitCode ?? 0;
}

/** Sends SIGHUP until the client exits: until then it counts as an attached terminal. */
const endScript = `[ -f "/tmp/$0" ] || exit
pid=$(cat "/tmp/$0")
for _ in 1 2 3 4 5 6 7 8 9 10; do
  kill -HUP "$pid" 2>/dev/null || break
  sleep 0.1
done
rm -f "/tmp/$0"`;

/**
 * A program of the worker can make the script hang, by a pipe in place of the file, and
 * signals do not end this process meanwhile.
 */
const endTimeoutMs = 2500;

async function endClient(
  docker: Docker,
  id: string,
  client: string,
): Promise<void> {
  const command = ["sh", "-c", endScript, client];
  await execIn(docker, id, command, { timeoutMs: endTimeoutMs }).catch(() => {
    // The container has exited, and so has the client; or it hangs.
  });
}

/**
 * Attaches this terminal to a container with a terminal, and with `start` starts the
 * container. Returns the container's exit code, 0 if it still runs, or 128 plus the
 * number of the signal that ended this process.
 */
export async function attachTerminal(
  docker: Docker,
  id: string,
  { start }: { start: boolean },
): Promise<number> {
  const container = docker.getContainer(id);
  try {
    const stream = await container.attach({
      stream: true,
      stdin: true,
      stdout: true,
      stderr: true,
      hijack: true,
    });
    const over = new AbortController();
    // Wait before the start: afterwards the parent may already have removed the container.
    const ended = container.wait({
      condition: "next-exit",
      abortSignal: over.signal,
    }).then(({ StatusCode }: { StatusCode: number }) => StatusCode, () => 0);
    if (start) await container.start();
    const signal = await connectTerminal({
      stream: stream as Connection["stream"],
      resize: (size) => container.resize(size),
    }, { redraw: !start });
    const late = setTimeout(() => over.abort(), signal ? 0 : settleMs);
    const code = await ended;
    clearTimeout(late);
    return signal ? 128 + constants.signals[signal] : code;
  } catch (error) {
    throw engineFailure(error, "Cannot attach this terminal");
  }
}

/**
 * Forwards input, output and window sizes until the other side ends or a signal arrives,
 * then restores the terminal. Returns the signal.
 */
async function connectTerminal(
  { stream, resize }: Connection,
  { redraw = false } = {},
): Promise<NodeJS.Signals | undefined> {
  const { stdin, stdout } = process;
  const filter = new TerminalFilter("screen");
  let signal: NodeJS.Signals | undefined;
  const ended = once(stream, "close").catch(() => {}); // an error closes the stream, too
  const restoreSignals = interceptSignals((given) => {
    signal ??= given;
    stream.destroy();
  });
  const passKeys = (keys: Uint8Array) => {
    if (!stream.write(keys)) {
      stdin.pause();
      stream.once("drain", () => stdin.resume());
    }
  };
  const endKeys = () => stream.end();
  // One at a time, or an earlier size could arrive last.
  let fitting: Promise<unknown> = Promise.resolve();
  const fit = () => {
    fitting = fitting.then(() =>
      // The command may not have started yet: retry.
      waitFor(
        () => {
          const { rows, columns } = stdout;
          if (!rows || !columns) return true;
          return resize({ h: rows, w: columns }).then(() => true, () => false);
        },
        { for: "the size of the terminal", timeoutMs: 1000 },
      )
    ).catch(() => {});
  };
  process.on("SIGWINCH", fit);
  // After the terminal has closed, every write fails. The client must still be ended, and
  // nothing more is written.
  stdout.removeAllListeners("error").on("error", () => stream.destroy());
  stdin.setRawMode(true);
  try {
    stream.on("data", (bytes: Uint8Array) => {
      if (stdout.write(filter.write(bytes))) return;
      stream.pause();
      stdout.once("drain", () => stream.resume());
    });
    stream.on("end", () => stream.destroy());
    // Reading from a terminal that closes fails.
    stdin.on("data", passKeys).on("end", endKeys).on("error", endKeys);
    stdin.resume();
    // Programs redraw the screen when its size changes.
    if (redraw && stdout.rows) {
      await resize({ h: stdout.rows + 1, w: stdout.columns }).catch(() => {});
    }
    fit();
    await ended;
  } finally {
    stdin.off("data", passKeys).off("end", endKeys);
    stdin.pause();
    process.off("SIGWINCH", fit);
    try {
      stdin.setRawMode(false);
    } catch {
      // The terminal was closed.
    }
    stdout.write(filter.end());
    restoreSignals();
  }
  return signal;
}
