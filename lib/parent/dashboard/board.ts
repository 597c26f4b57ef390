// Runs the dashboard: draws its pane, acts on its keys, keeps a window per worker, and
// rings when a session starts waiting.

import { setTimeout as sleep } from "node:timers/promises";
import { inspectContainer } from "../../docker/docker.ts";
import { execIn } from "../../docker/exec.ts";
import type { Instance } from "../../instance/instance.ts";
import { readParentState } from "../../instance/parent-state.ts";
import { readDesired } from "../../pool/desired.ts";
import { endWindowScript, screenOf } from "../../session/tmux.ts";
import {
  followSessions,
  sessionChanges,
  type WatchedWorker,
} from "../../session/watch.ts";
import { messageOf } from "../../std/errors.ts";
import { alertsOf, readStatus } from "../../usage/status.ts";
import type { Log } from "../../std/log.ts";
import { listWarm } from "../../worker/workers.ts";
import { Answers } from "./answers.ts";
import { type Action, actionsFor } from "./keys.ts";
import { Pane, readKeys } from "./pane.ts";
import { Rows } from "./rows.ts";
import { dashboardSession, dashboardTmux } from "./server.ts";
import type { Row } from "./table.ts";
import { TmuxControl, TmuxError } from "./tmux-control.ts";
import { drawView, type Overview } from "./view.ts";
import {
  arrangeWindows,
  emptyWindows,
  fillWindow,
  type Window,
} from "./windows.ts";

/** Interval of what is read only while a terminal is attached. */
const sampleEveryMs = 3000;

/** Interval of the checks that no event triggers. */
const overviewEveryMs = 10_000;

/** In docker/tmux-dashboard.conf. In a terminal of another tmux, that takes C-b. */
const outerPrefix = "C-b";
const nestedPrefix = "C-]";

export class Board {
  readonly #instance: Instance;
  readonly #log: Log;
  readonly #control: TmuxControl;
  readonly #rows: Rows;
  readonly #answers: Answers;
  #pane: Pane | undefined;
  #workers: WatchedWorker[] | undefined;
  #windows = new Map<string, Window>();
  #overview: Overview | undefined;
  #startedAt = "";
  #sampling = false;
  /** Whether a terminal shows the dashboard: only then is anything sampled. */
  #isAttached = false;
  #selected: string | undefined;
  #notice = "";
  #showsAll = false;
  #screens = new Map<string, string>();
  /** The rows whose screens are shown. */
  #onPage: Row[] = [];
  #hasColour = true;
  #prefix = outerPrefix;

  constructor(instance: Instance, log: Log) {
    this.#instance = instance;
    this.#log = log;
    this.#rows = new Rows(instance);
    this.#answers = new Answers(instance, log);
    this.#control = new TmuxControl(
      dashboardTmux,
      dashboardSession,
      (words) => this.#noteEvent(words),
    );
  }

  /** Serves the dashboard until `stop` is aborted or its tmux ends. */
  async run(stop: AbortController): Promise<void> {
    void this.#control.ended.then(() => stop.abort());
    const { docker, self } = this.#instance;
    const parent = self && await inspectContainer(docker, self.Id);
    this.#startedAt = parent?.State.StartedAt ?? "";
    await this.#findPane();
    const { signal } = stop;
    await Promise.all([
      followSessions(
        this.#instance,
        {
          stop: signal,
          log: this.#log,
          noted: ({ text }) => {
            this.#notice = text;
            this.#pane?.ring();
            this.#inBackground(this.#updateOverview());
          },
        },
        (workers) => this.#update(workers),
      ),
      this.#followKeys(signal),
      this.#every(overviewEveryMs, signal, () => this.#updateOverview()),
      this.#every(sampleEveryMs, signal, () => this.#sample()),
    ]);
    this.#control.close();
  }

  async #every(
    ms: number,
    stop: AbortSignal,
    act: () => Promise<void>,
  ): Promise<void> {
    while (!stop.aborted) {
      try {
        await act();
      } catch (error) {
        if (stop.aborted) return;
        this.#log(`Cannot update the dashboard: ${error}`);
      }
      await sleep(ms, undefined, { signal: stop }).catch(() => {});
    }
  }

  #noteEvent([name, ...words]: string[]): void {
    if (name === "layout-change" || name === "window-pane-changed") {
      this.#inBackground(this.#findPane());
    }
    if (name === "session-window-changed" && words[1]) {
      this.#inBackground(fillWindow(this.#control, words[1]));
    }
    if (name === "client-session-changed" || name === "client-detached") {
      this.#inBackground(this.#sample());
    }
  }

  /**
   * Ignores errors of tmux because it has changed meanwhile: its next event triggers an
   * update.
   */
  #inBackground(done: Promise<void>): void {
    done.catch((error) => {
      if (!(error instanceof TmuxError)) this.#log(`${error}`);
    });
  }

  async #findPane(): Promise<void> {
    this.#pane = await Pane.find(this.#control);
    this.#draw();
  }

  async #followKeys(stop: AbortSignal): Promise<void> {
    while (!stop.aborted) {
      const tty = this.#pane?.tty;
      if (tty) {
        await readKeys(tty, stop, (keys) => {
          for (const action of actionsFor(keys)) this.#act(action);
        });
      }
      await sleep(1000, undefined, { signal: stop }).catch(() => {});
    }
  }

  #act(action: Action): void {
    this.#notice = "";
    const row = this.#selectedRow();
    if (action === "up" || action === "down") this.#move(action);
    else if (action === "all") this.#showsAll = !this.#showsAll;
    else if (row && action === "open") this.#inBackground(this.#open(row));
    else if (row) this.#inBackground(this.#answer(row, action === "allow"));
    this.#draw();
    if (action === "all") this.#inBackground(this.#readScreens());
  }

  #selectedRow(): Row | undefined {
    return this.#rows.all.find(({ id }) => id === this.#selected);
  }

  #move(direction: "up" | "down"): void {
    const rows = this.#rows.all;
    const at = rows.findIndex(({ id }) => id === this.#selected);
    const next = rows[at + (direction === "up" ? -1 : 1)];
    if (!next) return;
    this.#selected = next.id;
    this.#inBackground(this.#readRequest());
  }

  async #open({ id }: Row): Promise<void> {
    const window = this.#windows.get(id);
    if (window) await this.#control.ask("select-window", "-t", window.id);
  }

  async #answer(row: Row, isAllowed: boolean): Promise<void> {
    this.#notice = await this.#answers.give(row, isAllowed);
    this.#draw();
  }

  /** Reads what the selected session asks for. */
  async #readRequest(): Promise<void> {
    if (!this.#isAttached) return;
    await this.#answers.read(this.#selectedRow());
    this.#draw();
  }

  async #update(workers: WatchedWorker[]): Promise<void> {
    const startedWaiting = sessionChanges(this.#workers, workers)
      .some(({ from, to }) =>
        to === "waiting" && from !== null && from !== "waiting"
      );
    this.#workers = workers;
    this.#windows = await arrangeWindows(
      this.#control,
      workers.map(({ worker }) => worker),
    );
    this.#rows.setWorkers(workers, this.#windows);
    const rows = this.#rows.all;
    // It stays with its session: a key must never reach another one.
    if (!rows.some(({ id }) => id === this.#selected)) {
      this.#selected = rows[0]?.id;
    }
    const waiting = rows.filter(({ state }) => state === "waiting").length;
    await this.#control.ask("set", "-g", "@workers", String(workers.length));
    await this.#control.ask("set", "-g", "@waiting", String(waiting));
    if (startedWaiting) this.#pane?.ring();
    this.#draw();
    this.#inBackground(this.#updateOverview());
    this.#inBackground(this.#readRequest());
    this.#inBackground(this.#sample());
  }

  /** Updates what no event reports: the parent, ChromaDB and the pool. */
  async #updateOverview(): Promise<void> {
    const { settings } = this.#instance;
    const state = readParentState(this.#instance);
    const claimed = this.#workers ?? [];
    this.#overview = {
      startedAt: this.#startedAt,
      readyMs: state?.readyMs ?? null,
      chromadbPort: settings.CHROMADB_PORT,
      chromadbAnswers: state?.chromadbFault === null,
      pool: readDesired(this.#instance).enabled
        ? {
          warm: (await listWarm(this.#instance)).length,
          busy: claimed.filter(({ worker }) => worker.born === "warm").length,
        }
        : null,
      // A few: the table needs the lines.
      alerts: alertsOf(readStatus(this.#instance), Date.now()).slice(0, 3),
    };
    this.#draw();
  }

  /**
   * Samples what changes without an event, unless no terminal is attached: it costs the
   * engine time.
   */
  async #sample(): Promise<void> {
    if (this.#sampling) return;
    this.#sampling = true;
    try {
      await this.#lookAtClients();
      if (!this.#isAttached) return;
      this.#rows.readLastLines();
      this.#draw();
      await Promise.all([
        this.#rows.sampleUsage(),
        this.#readRequest(),
        this.#readScreens(),
      ]);
      this.#draw();
    } finally {
      this.#sampling = false;
    }
  }

  /** Whether there are terminals, and whether the last one that attached has colours. */
  async #lookAtClients(): Promise<void> {
    const clients = (await this.#control.ask(
      ...["list-clients", "-F", "#{client_control_mode} #{client_termname}"],
    )).filter((line) => line.startsWith("0"));
    await this.#noteViewers(clients.length > 0);
    const isNested = clients.length > 0 &&
      clients.every((line) => /^0 (tmux|screen)/.test(line));
    this.#prefix = isNested ? nestedPrefix : outerPrefix;
    // tmux copies the variable of each client that attaches.
    const [line = ""] = await this.#control
      .ask("show-environment", "-t", `=${dashboardSession}`, "NO_COLOR")
      .catch(() => []);
    const hasColour = !/^NO_COLOR=./.test(line);
    if (hasColour === this.#hasColour) return;
    this.#hasColour = hasColour;
    await this.#control.ask("set", "-g", "@no_color", hasColour ? "0" : "1");
  }

  /** A window that nobody views must not count as a terminal of its session. */
  async #noteViewers(areThere: boolean): Promise<void> {
    if (areThere === this.#isAttached) return;
    this.#isAttached = areThere;
    if (areThere) {
      const [window = ""] = await this.#control.ask(
        ...["display-message", "-p", "-t", `=${dashboardSession}:`],
        "#{window_id}",
      );
      if (window !== "") await fillWindow(this.#control, window);
      return;
    }
    const sessions = new Set(
      this.#rows.all.filter(({ session, state }) =>
        session !== null && state !== "exited"
      ).map(({ id }) => id),
    );
    const { docker } = this.#instance;
    const emptied = await emptyWindows(this.#control, sessions);
    await Promise.all(
      emptied.map((worker) =>
        execIn(docker, worker, ["sh", "-c", endWindowScript]).catch(() => {})
      ),
    );
  }

  async #readScreens(): Promise<void> {
    if (!this.#showsAll || !this.#isAttached) return;
    const { docker } = this.#instance;
    this.#screens = new Map(
      await Promise.all(this.#onPage.map(async ({ id }) => {
        const screen = await screenOf(docker, id).catch(messageOf);
        return [id, screen] as const;
      })),
    );
    this.#draw();
  }

  #draw(): void {
    if (!this.#workers || !this.#pane) return;
    const { lines, showsRequest, onPage } = drawView(
      {
        overview: this.#overview,
        rows: this.#rows.all,
        selected: this.#selected,
        request: this.#answers.requestOf(this.#selected),
        notice: this.#notice,
        showsAll: this.#showsAll,
        screens: this.#screens,
        hasColour: this.#hasColour,
        prefix: this.#prefix,
      },
      this.#pane,
      Date.now(),
    );
    this.#pane.show(lines);
    this.#onPage = onPage;
    this.#answers.noteShown(showsRequest);
  }
}
