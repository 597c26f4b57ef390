// Runs the dashboard: draws three panes, keeps a window per worker, updates the
// status bar, and rings when a session starts waiting.

import { writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { inspectContainer } from "../../docker/docker.ts";
import type { Instance } from "../../instance/instance.ts";
import type { Log } from "../../std/log.ts";
import { readParentState } from "../../instance/parent-state.ts";
import { readDesired } from "../../pool/desired.ts";
import { windowScript } from "../../session/tmux.ts";
import {
  followSessions,
  sessionChanges,
  type WatchedWorker,
} from "../../session/watch.ts";
import { type WorkerStats, workerStats } from "../../worker/status.ts";
import { listWarm } from "../../worker/workers.ts";
import {
  countOf,
  fitLines,
  type Overview,
  overviewLines,
  paneHeights,
  usageLines,
  workerLines,
} from "./panes.ts";
import { dashboardSession, dashboardTmux } from "./server.ts";
import { TmuxControl, TmuxError } from "./tmux-control.ts";

/** Interval of the resource usage samples, while a terminal is attached. */
const sampleEveryMs = 3000;

/** Interval of the checks that no event triggers. */
const overviewEveryMs = 10_000;

interface Pane {
  name: string;
  tty: string;
  height: number;
}

export class Board {
  readonly #instance: Instance;
  readonly #log: Log;
  readonly #control: TmuxControl;
  #panes: Pane[] = [];
  /** The current content of each pane, to avoid redrawing it. */
  readonly #shown = new Map<string, string>();
  #workers: WatchedWorker[] | undefined;
  #stats: WorkerStats[] = [];
  #overview: Overview | undefined;
  #startedAt = "";
  #sampling = false;
  /** The window height that the panes are arranged for. */
  #arranged = "";

  constructor(instance: Instance, log: Log) {
    this.#instance = instance;
    this.#log = log;
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
    await this.#findPanes();
    const { signal } = stop;
    await Promise.all([
      followSessions(
        this.#instance,
        { stop: signal, log: this.#log },
        (workers) => this.#update(workers),
      ),
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
      this.#shown.clear();
      this.#ignoreTmuxErrors(this.#findPanes());
    }
    if (name === "session-window-changed" && words[1]) {
      this.#ignoreTmuxErrors(this.#fillWindow(words[1]));
    }
    if (name === "client-session-changed") {
      this.#ignoreTmuxErrors(this.#sample());
    }
  }

  /**
   * Ignores errors because tmux has changed meanwhile: its next event triggers an
   * update.
   */
  #ignoreTmuxErrors(done: Promise<void>): void {
    done.catch((error) => {
      if (!(error instanceof TmuxError)) this.#log(`${error}`);
    });
  }

  async #findPanes(): Promise<void> {
    await this.#arrangePanes();
    const format = "#{@pane} #{pane_tty} #{pane_height}";
    const target = `=${dashboardSession}:`;
    const lines = await this.#ask(
      "list-panes",
      "-s",
      "-t",
      target,
      "-F",
      format,
    );
    this.#panes = lines.flatMap((line) => {
      const [name = "", tty = "", height] = line.split(" ");
      return name === "" ? [] : [{ name, tty, height: Number(height) }];
    });
    this.#draw();
  }

  /** Resizes the panes by need; tmux would scale them equally. */
  async #arrangePanes(): Promise<void> {
    const target = `=${dashboardSession}:dashboard`;
    const format = "#{window_height} #{pane_id}";
    const panes = (await this.#ask("list-panes", "-t", target, "-F", format))
      .map((line) => line.split(" "));
    const [height = "", ...ids] = [panes[0]?.[0], ...panes.map(([, id]) => id)];
    if (height === this.#arranged || ids.length !== 4) return;
    this.#arranged = height;
    const heights = paneHeights(Number(height));
    // From the top: a pane takes its space from the next one.
    for (const [index, id] of ids.slice(0, -1).entries()) {
      const wanted = String(heights[index]);
      await this.#ask("resize-pane", "-t", id ?? "", "-y", wanted);
    }
  }

  async #update(workers: WatchedWorker[]): Promise<void> {
    const startedWaiting = sessionChanges(this.#workers, workers)
      .some(({ from, to }) =>
        to === "waiting" && from !== null && from !== "waiting"
      );
    this.#workers = workers;
    await this.#arrangeWindows(workers);
    const waiting = countOf(workers, "waiting");
    await this.#ask("set", "-g", "@workers", String(workers.length));
    await this.#ask("set", "-g", "@waiting", String(waiting));
    if (startedWaiting) this.#write("status", "\x07");
    this.#draw();
    this.#ignoreTmuxErrors(this.#updateOverview());
    this.#ignoreTmuxErrors(this.#sample());
  }

  /** Updates what no event reports: the parent, ChromaDB and the pool. */
  async #updateOverview(): Promise<void> {
    const { settings, names } = this.#instance;
    const state = readParentState(this.#instance);
    const port = settings.CHROMADB_PORT;
    const claimed = this.#workers ?? [];
    this.#overview = {
      parent: names.parent,
      startedAt: this.#startedAt,
      readyMs: state?.readyMs ?? null,
      chromadbPort: port,
      chromadbAnswers: state?.chromadbFault === null,
      pool: readDesired(this.#instance).enabled
        ? {
          warm: (await listWarm(this.#instance)).length,
          busy: claimed.filter(({ worker }) => worker.born === "warm").length,
        }
        : null,
    };
    this.#draw();
  }

  /**
   * Samples resource usage, unless no terminal is attached: it costs the engine
   * time.
   */
  async #sample(): Promise<void> {
    if (this.#sampling) return;
    this.#sampling = true;
    try {
      await this.#sampleNow();
    } finally {
      this.#sampling = false;
    }
  }

  async #sampleNow(): Promise<void> {
    const clients = await this.#ask(
      "list-clients",
      "-F",
      "#{client_control_mode}",
    );
    if (!clients.includes("0")) return;
    this.#stats = await workerStats(this.#instance);
    this.#draw();
  }

  #draw(): void {
    const workers = this.#workers;
    if (!workers) return;
    const contents: Record<string, string[]> = {
      status: this.#overview
        ? overviewLines(this.#overview, workers, Date.now())
        : [],
      workers: workerLines(workers),
      usage: usageLines(this.#stats),
    };
    for (const { name, height } of this.#panes) {
      const lines = fitLines(contents[name] ?? [], height);
      // Hide the cursor, disable wrapping; clear the rest of each line, then what
      // is below.
      const text = `\x1b[?25l\x1b[?7l\x1b[H${
        lines.map((line) => `${line}\x1b[K`).join("\r\n")
      }\x1b[J`;
      if (this.#shown.get(name) === text) continue;
      this.#shown.set(name, text);
      this.#write(name, text);
    }
  }

  #write(name: string, text: string): void {
    const pane = this.#panes.find((pane) => pane.name === name);
    try {
      if (pane) writeFileSync(pane.tty, text);
    } catch {
      this.#shown.delete(name); // the pane was closed; an event follows
    }
  }

  /** Keeps one window per worker. */
  async #arrangeWindows(workers: WatchedWorker[]): Promise<void> {
    const windows = await this.#windows();
    for (const [id, window] of windows) {
      if (workers.some(({ worker }) => worker.id === id)) continue;
      await this.#ask("kill-window", "-t", window).catch(() => {});
    }
    for (const { worker } of workers) {
      if (windows.has(worker.id)) continue;
      const [window = ""] = await this.#ask(
        "new-window",
        ...["-d", "-P", "-F", "#{window_id}"],
        ...["-t", `=${dashboardSession}:`, "-n", worker.name],
        // Nothing runs in the worker before the window is viewed.
        "exec tail -f /dev/null",
      );
      await this.#ask("set", "-w", "-t", window, "@worker", worker.id);
      await this.#ask("set", "-w", "-t", window, "pane-border-status", "off");
      await this.#ask("set", "-w", "-t", window, "remain-on-exit", "on");
    }
  }

  /** Window ids by worker id. */
  async #windows(): Promise<Map<string, string>> {
    const format = "#{@worker} #{window_id}";
    const target = `=${dashboardSession}`;
    const lines = await this.#ask("list-windows", "-t", target, "-F", format);
    return new Map(
      lines.map((line) => line.split(" ") as [string, string])
        .filter(([worker]) => worker !== ""),
    );
  }

  /** Attaches a window to its worker, unless it is attached. */
  async #fillWindow(window: string): Promise<void> {
    const format = "#{@worker} #{@filled} #{pane_dead}";
    const [line = ""] = await this.#ask(
      "list-panes",
      "-t",
      window,
      "-F",
      format,
    );
    const [worker = "", filled, dead] = line.split(" ");
    if (!/^[0-9a-f]{64}$/.test(worker) || (filled === "1" && dead === "0")) {
      return;
    }
    await this.#ask("set", "-w", "-t", window, "@filled", "1");
    await this.#ask(
      "respawn-pane",
      "-k",
      "-t",
      window,
      `exec docker exec -it --env=TERM=tmux-256color ${worker} sh -c ${
        shellQuoted(windowScript)
      }`,
    );
  }

  #ask(...words: string[]): Promise<string[]> {
    return this.#control.ask(...words);
  }
}

function shellQuoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
