// Runs Claude for one prompt in a worker, and prints its answer.

import { runDocker } from "../docker/docker-cli.ts";
import type { Instance } from "../instance/instance.ts";
import { answerLine, isResult, type OutputFormat } from "../session/answer.ts";
import type { ClaudeStart } from "../session/start.ts";
import type { Log } from "../std/log.ts";
import { limitEvents, tellOfPids } from "../worker/limit-events.ts";
import { tellOfMemory } from "../worker/status.ts";
import type { WorkerState } from "../worker/workers.ts";
import type { Io } from "../cli/io.ts";

/** What a command is asked for; without a format, the user's arguments choose it. */
export interface Asked {
  prompt: string;
  format: OutputFormat | undefined;
}

/** Makes Claude wait for the MCP servers before it handles the only prompt. */
const serverWait = {
  MCP_CONNECTION_NONBLOCKING: "0",
  MCP_CONNECT_TIMEOUT_MS: "30000",
};

/** How often the command says that it still waits. */
const waitingMs = 30_000;

/** Reports that the answer is waited for, as nothing is printed until Claude has it. */
export async function whileWaiting<T>(
  answer: Promise<T>,
  log: Log,
  everyMs = waitingMs,
): Promise<T> {
  const since = Date.now();
  const waiting = setInterval(() => {
    const seconds = Math.round((Date.now() - since) / 1000);
    log(`Waiting for the answer for ${seconds} s`);
  }, everyMs);
  return await answer.finally(() => clearInterval(waiting));
}

/**
 * Runs Claude in a worker; returns its exit code. Its result as JSON is not printed if the
 * caller holds it back.
 */
export async function ask(
  io: Io,
  instance: Instance,
  worker: Pick<WorkerState, "id" | "name">,
  { format, hold, ...start }: ClaudeStart & {
    format: Asked["format"];
    hold?: HeldResult | undefined;
  },
): Promise<number> {
  const env = { ...start.env, ...serverWait };
  const since = Date.now();
  const shown = format === undefined || format === "stream-json"
    ? undefined
    : (line: string) => answerLine(line, format, io.log);
  const code = await whileWaiting(
    runDocker([
      "exec",
      // The CLI waits three seconds for input, which a terminal does not give.
      ...(io.isInteractive ? [] : ["--interactive"]),
      ...Object.keys(env).map((name) => `--env=${name}`),
      ...[worker.id, "claude-session", ...start.arguments],
    ], {
      env,
      filtered: true,
      endsOnInterrupt: true,
      onLine: hold ? (line) => hold.take(line, shown) : shown,
    }),
    io.log,
  );
  const events = await limitEvents(instance, worker.id);
  tellOfPids({ name: worker.name, events, runs: false }, io.log);
  if (code !== 0) {
    await tellOfMemory(instance, worker, {
      since,
      killed: (events?.oomKills ?? 0) > 0,
      hint: "Raise the limit: WORKER_MEMORY in config/hal9000.conf.",
    }, io.log);
  }
  return code;
}

/** The last result that the CLI has printed as JSON. */
export class HeldResult {
  line: string | undefined;

  /** Returns what is to be printed for a line: a result only when the next one comes. */
  take(
    line: string,
    shown: (line: string) => string | undefined = (line) => line,
  ): string | undefined {
    if (!isResult(line)) return shown(line);
    const before = this.line;
    this.line = line;
    return before;
  }
}
