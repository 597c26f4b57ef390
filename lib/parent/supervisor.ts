// Keeps the parent's children running: restarts a child that ends, after a pause
// that doubles while it keeps ending.

// Not zx: these children live as long as the parent, with streams and signals.
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync } from "node:fs";
import { once } from "node:events";
import process from "node:process";
import type { Readable, Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { messageOf } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { openForOutput, type Owner } from "../std/owned.ts";
import { duration } from "../std/units.ts";

export interface ChildSpec {
  name: string;
  command: readonly [string, ...string[]];
  env?: Record<string, string>;
  /**
   * The user it runs as, without supplementary groups.
   * @default the parent's user
   */
  user?: Owner;
  /** Called before each start. */
  prepare?: () => void;
  /**
   * Called after each start, with the child's input and output.
   * @default no input, and the output goes to the log file
   */
  attend?: (input: Writable, output: Readable) => void;
  /** Path of its log file. */
  logFile: string;
  watch?: Watch;
}

/** Liveness check: a child that fails it is killed and restarted. */
export interface Watch {
  /** Whether the child answers. May be slow; throwing counts as no answer. */
  answers: (pid: number) => Promise<boolean>;
  everyMs: number;
  /** How long a child may be silent after its first answer. */
  silentMs: number;
  /** How long the first answer may take. */
  startMs: number;
}

export interface ChildState {
  name: string;
  pid: number | null;
  restarts: number;
}

/** Pauses before a restart, in milliseconds. */
export interface Backoff {
  first: number;
  last: number;
  /** After a run of this length, the pause starts over. */
  forgivenAfter: number;
}

const defaultBackoff: Backoff = {
  first: 250,
  last: 30_000,
  forgivenAfter: 30_000,
};

/** The pause before the next start; `previous` is undefined at first. */
export function nextPause(
  backoff: Backoff,
  previous: number | undefined,
  ranMs: number,
): number {
  if (previous === undefined || ranMs >= backoff.forgivenAfter) {
    return backoff.first;
  }
  return Math.min(previous * 2, backoff.last);
}

interface Child {
  spec: ChildSpec;
  process: ChildProcess | undefined;
  restarts: number;
  /** Aborted when it is not to be restarted. */
  stopping: AbortController;
  ended: Promise<void>;
}

export interface SupervisorOptions {
  log: Log;
  /** Called when the state of a child changes. */
  changed: () => void;
  /** Owner of the children's log files. */
  owner: Owner;
  backoff?: Backoff;
}

export class Supervisor {
  readonly #children: Child[] = [];
  readonly #options: SupervisorOptions & { backoff: Backoff };

  constructor(options: SupervisorOptions) {
    this.#options = { backoff: defaultBackoff, ...options };
  }

  start(spec: ChildSpec): void {
    const child: Child = {
      spec,
      process: undefined,
      restarts: 0,
      stopping: new AbortController(),
      ended: Promise.resolve(),
    };
    this.#children.push(child);
    child.ended = this.#keep(child);
  }

  get states(): ChildState[] {
    return this.#children.map(({ spec, process, restarts }) => ({
      name: spec.name,
      pid: process?.pid ?? null,
      restarts,
    }));
  }

  /** The pid of a child, undefined while it is down. */
  pidOf(name: string): number | undefined {
    return this.#children.find(({ spec }) => spec.name === name)?.process?.pid;
  }

  /** Stops the children, the last started first; kills each after `eachMs`. */
  async stop(eachMs: number): Promise<void> {
    for (const { stopping } of this.#children) stopping.abort();
    for (const child of this.#children.toReversed()) {
      await endChild(child, eachMs);
    }
  }

  /** Stops one child for good; does nothing if there is none of that name. */
  async end(name: string, withinMs: number): Promise<void> {
    const index = this.#children.findIndex(({ spec }) => spec.name === name);
    const [child] = index < 0 ? [] : this.#children.splice(index, 1);
    if (!child) return;
    await endChild(child, withinMs);
    this.#options.changed();
  }

  has(name: string): boolean {
    return this.#children.some(({ spec }) => spec.name === name);
  }

  async #keep(child: Child): Promise<void> {
    const stopping = child.stopping.signal;
    let pause: number | undefined;
    while (!stopping.aborted) {
      const startedAt = Date.now();
      const end = await this.#runOnce(child);
      this.#options.changed();
      if (stopping.aborted) return;
      pause = nextPause(this.#options.backoff, pause, Date.now() - startedAt);
      this.#options.log(
        `${child.spec.name} ${end}; restarting it in ${pause} ms`,
      );
      await sleep(pause, undefined, { signal: stopping }).catch(() => {});
      child.restarts++;
    }
  }

  /** Kills a child that has been silent for too long. */
  async #watch(
    { name, watch }: ChildSpec,
    { pid }: ChildProcess,
    ended: AbortSignal,
  ): Promise<void> {
    if (!watch || pid === undefined) return;
    let answeredAt = Date.now();
    let timeoutMs = watch.startMs;
    while (true) {
      const before = Date.now();
      await sleep(watch.everyMs, undefined, { signal: ended }).catch(() => {});
      if (ended.aborted) return;
      // This process was suspended, as when the machine sleeps.
      if (Date.now() - before > 2 * watch.everyMs) answeredAt = Date.now();
      const answered = await within(watch.answers(pid), watch.silentMs);
      if (ended.aborted) return;
      if (answered) {
        answeredAt = Date.now();
        timeoutMs = watch.silentMs;
      } else if (Date.now() - answeredAt >= timeoutMs) {
        this.#options.log(
          `${name} has not answered for ${
            duration(Date.now() - answeredAt)
          }; killing it`,
        );
        process.kill(pid, "SIGKILL");
        return;
      }
    }
  }

  /** Runs a child until it ends; returns how it ended. */
  async #runOnce(child: Child): Promise<string> {
    const { command, env, logFile, user, prepare, attend } = child.spec;
    const [file, ...args] = command;
    const flags = child.restarts === 0 ? "w" : "a";
    const output = openForOutput(logFile, flags, this.#options.owner);
    try {
      prepare?.();
      const running = spawn(file, args, {
        // The current directory belongs to root.
        ...(user ? { ...user, cwd: "/" } : {}),
        env: { ...process.env, ...env },
        stdio: attend ? ["pipe", "pipe", output] : ["ignore", output, output],
      });
      if (running.stdin && running.stdout) {
        attend?.(running.stdin, running.stdout);
      }
      child.process = running;
      this.#options.changed();
      const ended = new AbortController();
      void this.#watch(child.spec, running, ended.signal);
      const [code, signal] = await once(running, "exit")
        .finally(() => ended.abort());
      return signal ? `was ended by ${signal}` : `ended with code ${code}`;
    } catch (error) {
      return `could not be started: ${messageOf(error)}`;
    } finally {
      child.process = undefined;
      closeSync(output);
    }
  }
}

/** Undefined after the timeout, or if the promise rejects. */
async function within<T>(
  promise: Promise<T>,
  timeoutMs: number,
): Promise<T | undefined> {
  const late = sleep(timeoutMs, undefined, { ref: false });
  return await Promise.race([promise, late]).catch(() => undefined);
}

async function endChild(child: Child, withinMs: number): Promise<void> {
  child.stopping.abort();
  signal(child, "SIGTERM");
  const timer = setTimeout(() => signal(child, "SIGKILL"), withinMs);
  await child.ended;
  clearTimeout(timer);
}

/** Not ChildProcess.kill(): under Deno it sends no second signal. */
function signal(child: Child, name: "SIGTERM" | "SIGKILL"): void {
  if (child.process?.pid !== undefined) process.kill(child.process.pid, name);
}
