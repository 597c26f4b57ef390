// A command in a container, or a container itself, at this terminal: its output
// passes the filter, for a process of the worker can write to its terminal directly.

import { once } from "node:events";
import { constants } from "node:os";
import process from "node:process";
import type { Docker } from "./docker.ts";
import { engineFailure } from "./docker-errors.ts";
import { execIn } from "./exec.ts";
import { interceptSignals } from "../std/signals.ts";
import { TerminalFilter } from "../std/terminal-filter.ts";
import { waitFor } from "../std/wait.ts";

/** Longer than the engine takes to tell that what was shown has ended. */
const settleMs = 1000;

/** As the engine calls it. */
interface Size {
  h: number;
  w: number;
}

interface Connection {
  /** A socket: the answer of a request that was upgraded. */
  stream: NodeJS.ReadWriteStream & { destroy(): void };
  resize(size: Size): Promise<unknown>;
}

/** Runs it to its end, or to the end of the terminal; gives its exit code. */
export async function execAtTerminal(
  docker: Docker,
  id: string,
  env: NodeJS.ProcessEnv,
  command: readonly string[],
  variables: Record<string, string> = {},
): Promise<number> {
  const terminal = env["TERM"] ?? "";
  // Others are unknown to the container's programs.
  const known = /^(xterm|tmux|screen|linux|vt100)/.test(terminal);
  // A name by which it can be ended: the engine leaves it running where the
  // terminal is closed.
  const client = crypto.randomUUID();
  try {
    const exec = await docker.getContainer(id).exec({
      Cmd: ["sh", "-c", `echo $$ >"/tmp/$0"; exec "$@"`, client, ...command],
      Env: Object.entries({
        TERM: known ? terminal : "xterm-256color",
        ...variables,
      }).map(([name, value]) => `${name}=${value}`),
      AttachStdin: true,
      AttachStdout: true,
      AttachStderr: true,
      Tty: true,
    });
    const stream = await exec.start({ hijack: true, stdin: true, Tty: true });
    // A closing terminal sends more than one signal, and a second one must not end this
    // process before the client has ended. Until now one may: there is no client.
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

/** Where it goes on, somebody has detached from it by the engine's keys. */
async function exitCodeOf(exec: Docker.Exec): Promise<number> {
  let found: Docker.ExecInspectInfo | undefined;
  await waitFor(async () => {
    found = await exec.inspect();
    return !found.Running;
  }, { for: "the command to end", timeoutMs: settleMs }).catch(() => {});
  return found?.ExitCode ?? 0;
}

/** Tells it until it has ended: until then it counts as a terminal. */
const endScript = `pid=$(cat "/tmp/$0")
for _ in 1 2 3 4 5 6 7 8 9 10; do
  kill -HUP "$pid" 2>/dev/null || break
  sleep 0.1
done
rm -f "/tmp/$0"`;

async function endClient(
  docker: Docker,
  id: string,
  client: string,
): Promise<void> {
  await execIn(docker, id, ["sh", "-c", endScript, client]).catch(() => {
    // The container has ended, and the client with it.
  });
}

/**
 * Attaches this terminal to a container that has one, which is started where that is
 * asked for; gives its exit code, 0 where it goes on, or 128 and the number of the
 * signal that ended us.
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
    // Asked for before: the parent may be faster to remove it.
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
 * Passes keys, output and sizes until the other side ends, or we are told to; gives
 * the signal that told us. Then the terminal is as it was.
 */
async function connectTerminal(
  { stream, resize }: Connection,
  { redraw = false } = {},
): Promise<NodeJS.Signals | undefined> {
  const { stdin, stdout } = process;
  const filter = new TerminalFilter("screen");
  let signal: NodeJS.Signals | undefined;
  const ended = once(stream, "close").catch(() => {}); // a broken stream has ended
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
  // One after the other, or an earlier size could come last.
  let fitting: Promise<unknown> = Promise.resolve();
  const fit = () => {
    fitting = fitting.then(() =>
      // It may have ended, or not begun: it is asked again.
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
  // A terminal that was closed fails every write; what shows us there has yet to be
  // ended, and nothing is written after that.
  stdout.removeAllListeners("error").on("error", () => stream.destroy());
  stdin.setRawMode(true);
  try {
    stream.on("data", (bytes: Uint8Array) => {
      if (stdout.write(filter.write(bytes))) return;
      stream.pause();
      stdout.once("drain", () => stream.resume());
    });
    stream.on("end", () => stream.destroy());
    // A terminal that is closed while it is read fails the read.
    stdin.on("data", passKeys).on("end", endKeys).on("error", endKeys);
    stdin.resume();
    // A program draws itself anew when its size changes.
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
