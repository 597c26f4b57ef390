// Follows the workers and what their sessions do, as both change.

import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type CliState, readCliState } from "./activity.ts";
import { messageOf } from "../std/errors.ts";
import { followEvents } from "../instance/events.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { sessionHome } from "../home/worker-home.ts";
import { listWorkers, type WorkerState } from "../worker/workers.ts";

export interface WatchedWorker {
  worker: WorkerState;
  /** Null where no CLI runs as its session. */
  said: CliState | null;
}

/** Files are looked at so often; no process is started for it. */
const everyMs = 500;

/** Docker is asked again after its events, and so often in any case. */
const listEveryMs = 30_000;

const actions = ["start", "die", "destroy", "rename", "pause", "unpause"];

/** Calls `act` at first and after each change, until `stop` is aborted. */
export async function followSessions(
  instance: Instance,
  options: { stop: AbortSignal; log: Log },
  act: (workers: WatchedWorker[]) => Promise<void> | void,
): Promise<void> {
  const { stop, log } = options;
  let changed = true;
  const events = followWorkers(instance, stop, log, () => changed = true);
  let workers: WorkerState[] = [];
  let listedAt = 0;
  let last = "";
  while (!stop.aborted) {
    try {
      if (changed || Date.now() - listedAt > listEveryMs) {
        changed = false;
        workers = (await listWorkers(instance))
          .filter(({ state }) => state === "running" || state === "paused");
        listedAt = Date.now();
        // One that was claimed this moment has its record in the next.
        changed = workers.some(({ project }) => project === "");
      }
      const now = workers.map((worker) => watched(instance, worker));
      const text = JSON.stringify(now);
      if (text !== last) await act(now);
      last = text;
    } catch (error) {
      log(`Cannot look at the workers: ${messageOf(error)}`);
      changed = true;
    }
    await sleep(everyMs, undefined, { signal: stop }).catch(() => {});
  }
  await events;
}

/** What Docker says of its age is left out: it would be a change of its own. */
function watched(
  { home }: Instance,
  worker: WorkerState,
): WatchedWorker {
  const { session } = worker;
  const said = session === null
    ? null
    : readCliState(join(home.home, sessionHome(session))) ?? null;
  return { worker: { ...worker, status: "" }, said };
}

async function followWorkers(
  instance: Instance,
  stop: AbortSignal,
  log: Log,
  note: () => void,
): Promise<void> {
  while (!stop.aborted) {
    try {
      await followEvents(instance, { actions, role: "worker", stop }, note);
    } catch (error) {
      if (!stop.aborted) log(`Docker's events broke off: ${messageOf(error)}`);
    }
    note();
    await sleep(1000, undefined, { signal: stop }).catch(() => {});
  }
}

export interface SessionChange {
  session: string;
  project: string;
  /** Null where it was not known before. */
  from: CliState["activity"] | null;
  to: CliState["activity"];
  waitingFor: string | null;
}

/** What became of the sessions from one look to the next. */
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
