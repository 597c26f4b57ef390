// Watches the workers and the activity of their sessions for changes.

import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  type CliState,
  readCliState,
  readEnding,
  withLimit,
} from "./activity.ts";
import { messageOf } from "../std/errors.ts";
import { followEvents } from "../instance/events.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { sessionHome } from "../home/worker-home.ts";
import {
  NewNotices,
  type Notice,
  type Status,
  StatusFile,
} from "../usage/status.ts";
import { listWorkers, type WorkerState } from "../worker/workers.ts";

export interface WatchedWorker {
  worker: WorkerState;
  /** Null if no CLI is running. */
  said: CliState | null;
  /** Exit code of a Claude that has ended while its worker runs; null otherwise. */
  exitCode: number | null;
}

/** How often the status files are read; this starts no process. */
const pollIntervalMs = 500;

/** Workers are listed after Docker events, and at least this often. */
const listIntervalMs = 30_000;

const actions = ["start", "die", "destroy", "rename", "pause", "unpause"];

/**
 * Calls `act` once at the start and after each change, and `noted` for each new notice about
 * budgets and limits, until `stop` is aborted.
 */
export async function followSessions(
  instance: Instance,
  options: {
    stop: AbortSignal;
    log: Log;
    noted?: (notice: Notice) => void;
  },
  act: (workers: WatchedWorker[]) => Promise<void> | void,
): Promise<void> {
  const { stop, log } = options;
  let changed = true;
  const events = followWorkers(instance, stop, log, () => changed = true);
  let workers: WorkerState[] = [];
  let listedAt = 0;
  let last = "";
  const statusFile = new StatusFile(instance);
  const notices = new NewNotices();
  while (!stop.aborted) {
    try {
      if (changed || Date.now() - listedAt > listIntervalMs) {
        changed = false;
        workers = (await listWorkers(instance))
          .filter(({ state }) => state === "running" || state === "paused");
        listedAt = Date.now();
        // A worker that is just being claimed has no record yet: list again.
        changed = workers.some(({ project }) => project === "");
      }
      const status = statusFile.read();
      for (const notice of notices.from(status)) options.noted?.(notice);
      const now = workers.map((worker) => watched(instance, worker, status));
      const text = JSON.stringify(now);
      if (text !== last) await act(now);
      last = text;
    } catch (error) {
      log(`Cannot watch the sessions: ${messageOf(error)}`);
      changed = true;
    }
    await sleep(pollIntervalMs, undefined, { signal: stop }).catch(() => {});
  }
  await events;
}

/** Leaves out Docker's status text ("Up 5 minutes"), which changes by itself. */
function watched(
  { home }: Pick<Instance, "home">,
  worker: WorkerState,
  status: Status | undefined,
): WatchedWorker {
  const { session } = worker;
  const shown = { ...worker, status: "" };
  if (session === null) return { worker: shown, said: null, exitCode: null };
  const claudeHome = join(home.home, sessionHome(session));
  const seen = readCliState(claudeHome);
  const said = seen ? withLimit(seen, status, session, Date.now()) : null;
  const exitCode = said ? null : readEnding(claudeHome)?.exitCode ?? null;
  return { worker: shown, said, exitCode };
}

async function followWorkers(
  instance: Instance,
  stop: AbortSignal,
  log: Log,
  onEvent: () => void,
): Promise<void> {
  while (!stop.aborted) {
    try {
      await followEvents(instance, { actions, role: "worker", stop }, onEvent);
    } catch (error) {
      if (!stop.aborted) {
        log(`Docker's event stream was interrupted: ${messageOf(error)}`);
      }
    }
    onEvent();
    await sleep(1000, undefined, { signal: stop }).catch(() => {});
  }
}

export interface SessionChange {
  session: string;
  project: string;
  /** Null if there was no earlier state. */
  from: CliState["activity"] | null;
  to: CliState["activity"];
  waitingFor: string | null;
}

/** The sessions whose state differs between two calls of followSessions()'s `act`. */
export function sessionChanges(
  before: WatchedWorker[] | undefined,
  now: WatchedWorker[],
): SessionChange[] {
  const former = new Map(sessionsIn(before ?? []));
  const present = new Map(sessionsIn(now));
  const changes: SessionChange[] = [];
  for (const [session, { worker, said }] of present) {
    const from = former.get(session)?.said ?? null;
    const same = from?.activity === said.activity &&
      from.waitingFor === said.waitingFor;
    if (same) continue;
    changes.push({
      session,
      project: worker.project,
      from: from?.activity ?? (before ? "stopped" : null),
      to: said.activity,
      waitingFor: said.waitingFor,
    });
  }
  for (const [session, { worker, said }] of former) {
    if (present.has(session)) continue;
    const from = said.activity;
    const { project } = worker;
    changes.push({ session, project, from, to: "stopped", waitingFor: null });
  }
  return changes;
}

type WithSession = WatchedWorker & { said: CliState };

function sessionsIn(workers: WatchedWorker[]): [string, WithSession][] {
  return workers.flatMap(({ worker, said }) =>
    worker.session === null || said === null
      ? []
      : [[worker.session, { worker, said }] as [string, WithSession]]
  );
}
