// Lets sessions go on that stopped because a limit of the account was reached, when it
// resets: one after another, so that they do not reach it together again. One that works or
// waits for an answer is left alone.

import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { sessionHome } from "../home/worker-home.ts";
import { readSettings } from "../instance/config.ts";
import type { Instance } from "../instance/instance.ts";
import { messageOf } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { writeAtomic } from "../std/owned.ts";
import { type Status, StatusFile } from "../usage/status.ts";
import { type CliState, readCliState } from "./activity.ts";
import { sendText } from "./send.ts";

const checkMs = 1000;

/** Time between two sessions, and what is added to it at random. */
const spreadMs = 10_000;
const jitterMs = 5000;

/** How long a session is watched that still works when the limit has reset. */
const followMs = 30 * 60_000;

/** Runs in the parent until `stop` is aborted; acts if the setting or a request asks for it. */
export async function keepResumed(
  instance: Instance,
  stop: AbortSignal,
  log: Log,
): Promise<void> {
  const { home } = instance;
  const status = new StatusFile(instance);
  const resumer = new Resumer({
    stateOf: (session) => readCliState(join(home.home, sessionHome(session))),
    send: (session, text) =>
      sendText(instance, session, text, { onlyIntoEmptyPrompt: true }),
    log,
  });
  while (!stop.aborted) {
    try {
      const requested = existsSync(home.usageResume);
      if (requested || readSettings(process.env).RESUME_WHEN_RESET) {
        const isDone = await resumer.look(status.read(), Date.now());
        if (isDone && requested) rmSync(home.usageResume, { force: true });
      }
    } catch (error) {
      log(`Cannot resume sessions: ${messageOf(error)}`);
    }
    await sleep(checkMs, undefined, { signal: stop }).catch(() => {});
  }
}

/** Asks the parent to do it once. */
export function requestResume({ home, owner }: Instance): void {
  writeAtomic(home.usageResume, "", owner);
}

interface Ways {
  stateOf: (session: string) => CliState | undefined;
  send: (session: string, text: string) => Promise<void>;
  log: Log;
  random?: () => number;
}

export class Resumer {
  readonly #ways: Ways;
  /** By session: the refusal that was dealt with. */
  readonly #done = new Map<string, number>();
  #nextAt = 0;

  constructor(ways: Ways) {
    this.#ways = ways;
  }

  /** Lets at most one session go on. Returns whether none is left. */
  async look(status: Status | undefined, now: number): Promise<boolean> {
    const left = Object.entries(status?.limited ?? {})
      .filter(([session, { at, resetsAt }]) =>
        this.#done.get(session) !== at && now - resetsAt < followMs
      )
      .sort(([, a], [, b]) => a.resetsAt - b.resetsAt || a.at - b.at);
    if (now < this.#nextAt) return left.length === 0;
    for (const [session, { at, resetsAt }] of left) {
      // A second more, in case that the clocks differ.
      if (now < resetsAt + checkMs) continue;
      const activity = this.#ways.stateOf(session)?.activity;
      // The CLI tries again by itself, and may stop later.
      if (activity === "working") continue;
      this.#done.set(session, at);
      if (activity !== "idle") continue;
      await this.#tell(session, now);
      const { random = Math.random } = this.#ways;
      this.#nextAt = now + spreadMs + random() * jitterMs;
      return false;
    }
    return left.every(([session, { at }]) => this.#done.get(session) === at);
  }

  async #tell(session: string, now: number): Promise<void> {
    const time = new Date(now).toTimeString().slice(0, 8);
    try {
      await this.#ways.send(session, `Go on (the limit has reset, ${time})`);
      this.#ways.log(`The limit has reset: ${session} goes on`);
    } catch (error) {
      this.#ways.log(`Cannot resume "${session}": ${messageOf(error)}`);
    }
  }
}
