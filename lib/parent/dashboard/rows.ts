// The rows of the dashboard's table, from the workers, their conversations and samples of
// their resource usage.

import type { Instance } from "../../instance/instance.ts";
import { lastSaidAt, scanTimeoutMs } from "../../session/conversations.ts";
import { lastLine } from "../../session/transcript.ts";
import type { WatchedWorker } from "../../session/watch.ts";
import { StatusFile, todayText, usedToday } from "../../usage/status.ts";
import { workersStatus, workerStats } from "../../worker/status.ts";
import type { Row, RowState, Usage } from "./table.ts";
import type { Window } from "./windows.ts";

export class Rows {
  readonly #instance: Instance;
  readonly #status: StatusFile;
  #workers: WatchedWorker[] = [];
  #windows = new Map<string, Window>();
  /** By worker id: its state, and since when. */
  #since = new Map<string, { state: RowState; ms: number }>();
  /** By worker id. */
  #lastLines = new Map<string, string>();
  /** By worker name. */
  #usage = new Map<string, Usage>();

  constructor(instance: Instance) {
    this.#instance = instance;
    this.#status = new StatusFile(instance);
  }

  setWorkers(workers: WatchedWorker[], windows: Map<string, Window>): void {
    const former = this.#since;
    this.#since = new Map(workers.map((watched) => {
      const { id } = watched.worker;
      const state = stateOf(watched);
      const known = former.get(id);
      if (known?.state === state) return [id, known];
      return [id, {
        state,
        ms: known ? Date.now() : this.#lastActiveMs(watched),
      }];
    }));
    this.#workers = workers;
    this.#windows = windows;
  }

  /** For a worker that is seen for the first time. */
  #lastActiveMs({ worker: { session, createdAt } }: WatchedWorker): number {
    const created = Date.parse(createdAt);
    if (session === null) return created;
    const deadline = Date.now() + scanTimeoutMs;
    return Math.max(
      created,
      unlessUnreadable(() => lastSaidAt(this.#instance, session, deadline), 0),
    );
  }

  readLastLines(): void {
    this.#lastLines = new Map(
      this.#workers.map(({ worker: { id, session } }) => {
        const read = () =>
          session === null ? "" : lastLine(this.#instance, session);
        return [id, unlessUnreadable(read, "")];
      }),
    );
  }

  async sampleUsage(): Promise<void> {
    const [stats, { workers }] = await Promise.all([
      workerStats(this.#instance),
      workersStatus(this.#instance),
    ]);
    this.#usage = new Map(workers.flatMap(({ name, ...limits }) => {
      const sample = stats.find((each) => each.name === name);
      return sample ? [[name, { ...sample, limits }]] : [];
    }));
  }

  /** Waiting sessions come first, workers without a session last. */
  get all(): Row[] {
    const rows = this.#workers.map((watched): Row => {
      const { id, name, session, project, network } = watched.worker;
      return {
        id,
        window: this.#windows.get(id)?.index,
        name: session ?? name,
        session,
        project,
        network,
        state: stateOf(watched),
        waitingFor: detailOf(watched),
        today: todayText(usedToday(this.#status.read(), session, Date.now())),
        sinceMs: this.#since.get(id)?.ms ?? Date.now(),
        lastLine: this.#lastLines.get(id) ?? "",
        usage: this.#usage.get(name),
      };
    });
    return rows.sort((a, b) => rank(a) - rank(b));
  }
}

function rank({ state }: Row): number {
  return state === "waiting" ? 0 : state === "no session" ? 2 : 1;
}

function stateOf({ worker, said, exitCode }: WatchedWorker): RowState {
  if (worker.state !== "running") return "paused";
  if (worker.session === null) return "no session";
  return said?.activity ?? (exitCode === null ? "starting" : "exited");
}

function detailOf({ said, exitCode }: WatchedWorker): string {
  return exitCode ? `exit code ${exitCode}` : said?.waitingFor ?? "";
}

/** A home that holds too much, or that may not be read, must not stop the dashboard. */
function unlessUnreadable<T>(read: () => T, otherwise: T): T {
  try {
    return read();
  } catch {
    return otherwise;
  }
}
