// Runs in the parent: keeps what the meter in the relay's process counts, and decides which
// sessions may not send: because a budget is spent, or because they were paused.

import process from "node:process";
import * as v from "valibot";
import { readSettings } from "../instance/config.ts";
import type { Instance } from "../instance/instance.ts";
import { messageOf } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { writeAtomic } from "../std/owned.ts";
import { fileSignature } from "../std/plain-file.ts";
import {
  type Budget,
  type BudgetState,
  budgetStates,
  costUsd,
  nearMessage,
  readBudgets,
  spentMessage,
  tokensOf,
} from "./budgets.ts";
import { clockText, dayAfter, dayOf } from "./days.ts";
import { pausedMessage } from "./meter.ts";
import { type Note, noteSchema, type ReplyNote, type State } from "./notes.ts";
import { pause, type Paused, readPaused } from "./paused.ts";
import { costOf, type Prices, readPrices } from "./prices.ts";
import { addFigures, noFigures, Records, type Row } from "./records.ts";
import { type Notice, readStatus, type Status, type Today } from "./status.ts";

export interface Ledger {
  /** Takes a note of the meter. Its process handles hostile input, so it is checked. */
  event(note: unknown): void;
  /** What the meter has to know. To be asked several times a second. */
  state(): State;
}

type Home = Pick<Instance, "home" | "owner" | "prefix">;

export function openLedger(
  instance: Home,
  log: Log,
  { now = () => Date.now(), env = process.env }: {
    now?: () => number;
    env?: NodeJS.ProcessEnv;
  } = {},
): Ledger {
  return new HomeLedger(instance, log, now, env);
}

/** More than there are sessions; older ones are dropped. */
const maxLimited = 1000;
const keptNotices = 50;
/** Those that used most: the status is read often. */
const maxToday = 1000;

/** A session that has not sent since is no longer expected to. */
const limitedMs = 24 * 3600 * 1000;

/** Shorter limits, which the CLI waits for by itself, are not reported. */
const minReportedMs = 60_000;

/** The status is written this often at most, except for what someone waits for. */
const writeMs = 1000;

class HomeLedger implements Ledger {
  readonly #instance: Home;
  readonly #log: Log;
  readonly #now: () => number;
  readonly #env: NodeJS.ProcessEnv;
  readonly #records: Records;
  #prices: Prices | undefined;
  /** Undefined if they cannot be read. */
  #budgets: Budget[] | undefined;
  #paused: Paused[] = [];
  #status: Status;
  #state: State;
  #maxPerMinute = 0;
  /** Whether something was counted or noted since the decisions were made. */
  #changed = true;
  #signature = "";
  #written = "";
  #writtenAt = -Infinity;
  #failed = false;
  /** The parts of the status that are written at once, as text. */
  #urgent = "";

  constructor(
    instance: Home,
    log: Log,
    now: () => number,
    env: NodeJS.ProcessEnv,
  ) {
    this.#instance = instance;
    this.#log = log;
    this.#now = now;
    this.#env = env;
    this.#records = new Records(instance, log);
    this.#status = readStatus(instance) ?? emptyStatus;
    this.#state = emptyState;
    this.#signature = this.#filesSignature();
    this.#read();
    this.#decide();
  }

  event(input: unknown): void {
    const parsed = v.safeParse(noteSchema, input);
    if (!parsed.success) return;
    try {
      this.#take(parsed.output);
    } catch (error) {
      this.#log(`warning: a figure was not counted: ${messageOf(error)}`);
    }
    this.#changed = true;
  }

  #take(note: Note): void {
    if (note.kind === "reply") this.#count(note);
    else if (note.kind === "limit") this.#noteLimit(note);
    else if (note.kind === "runaway") this.#pause(note);
    else this.#status = { ...this.#status, windows: note.windows };
  }

  #count(note: ReplyNote): void {
    const { session, project, status, startedAt } = note;
    const { kind: _, at, startedAt: __, promptTokens, model, ...figures } =
      note;
    const cost = this.#prices &&
      costOf(
        this.#prices,
        { ...note, model: model ?? undefined },
        promptTokens,
      );
    this.#records.add({
      ...figures,
      at: new Date(at).toISOString(),
      day: dayOf(at),
      session,
      project,
      model: model ?? "",
      cost: cost ?? 0,
      unpriced: cost === undefined ? tokensOf({ ...noFigures(), ...note }) : 0,
    });
    if (status < 400) this.#noteSuccess(session, startedAt);
  }

  /** A request that began after a limit was reached shows that it is over. */
  #noteSuccess(session: string, startedAt: number): void {
    const { limited, limit } = this.#status;
    const since = Object.hasOwn(limited, session)
      ? limited[session]?.at
      : undefined;
    if (since === undefined || startedAt <= since) return;
    const { [session]: _, ...others } = limited;
    const isOver = Object.keys(others).length === 0;
    this.#status = {
      ...this.#status,
      limited: others,
      limit: isOver ? null : limit,
    };
  }

  #noteLimit(
    { session, project, at, resetsAt, claim }: Extract<Note, { kind: "limit" }>,
  ): void {
    const { limit, limited } = this.#status;
    const isNew = !limit || limit.resetsAt <= at;
    this.#status = {
      ...this.#status,
      limit: { claim, at: isNew ? at : limit.at, resetsAt },
      limited: Object.fromEntries([
        ...Object.entries(limited)
          .filter(([name, { resetsAt }]) =>
            name !== session && at - resetsAt < limitedMs
          ).slice(-maxLimited),
        [session, { project, at, resetsAt }],
      ]),
    };
    if (!isNew || resetsAt - at < minReportedMs) return;
    const which = claim === "" ? "" : ` (${claim.replaceAll("_", " ")})`;
    this.#notify(
      "limit",
      null,
      null,
      `The account's limit${which} is ` +
        `reached; it resets at ${clockText(resetsAt, at)}`,
    );
  }

  #pause(
    { session, project, at, maxPerMinute }: Extract<Note, { kind: "runaway" }>,
  ): void {
    const paused = {
      session,
      project,
      at: new Date(at).toISOString(),
      maxPerMinute,
    };
    pause(this.#instance, paused);
    this.#notify(
      "paused",
      session,
      project,
      `${pausedMessage(session)} (MAX_REQUESTS_PER_MINUTE is ${maxPerMinute})`,
    );
  }

  #notify(
    kind: Notice["kind"],
    session: string | null,
    project: string | null,
    text: string,
  ): void {
    const at = new Date(this.#now()).toISOString();
    const notices = [
      ...this.#status.notices,
      { at, kind, session, project, text },
    ];
    this.#status = { ...this.#status, notices: notices.slice(-keptNotices) };
    this.#log(text);
  }

  state(): State {
    const signature = this.#filesSignature();
    if (signature !== this.#signature) {
      this.#signature = signature;
      this.#read();
      this.#changed = true;
    }
    if (this.#changed) this.#decide();
    this.#write();
    return this.#state;
  }

  /** Differs after each change of a file that decides, and each day. */
  #filesSignature(): string {
    const { home } = this.#instance;
    const paths = [home.budgets, home.pricesFile, home.conf, home.usagePaused];
    return [dayOf(this.#now()), ...paths.map(fileSignature)].join("\n");
  }

  #read(): void {
    const { home } = this.#instance;
    this.#prices = this.#tried(() => readPrices(home)) ?? this.#prices;
    this.#budgets = this.#tried(() => readBudgets(home));
    this.#paused = this.#tried(() => readPaused(this.#instance)) ??
      this.#paused;
    const settings = this.#tried(() => readSettings(this.#env));
    this.#maxPerMinute = settings?.MAX_REQUESTS_PER_MINUTE ??
      this.#maxPerMinute;
  }

  #decide(): void {
    this.#changed = false;
    const day = dayOf(this.#now());
    const recent = [...this.#records.rows]
      .filter((row) => row.day >= dayAfter(day, -7));
    const budgets = budgetStates(this.#budgets ?? [], recent, day);
    this.#warn(budgets);
    this.#status = {
      ...this.#status,
      day,
      today: todayOf(recent.filter((row) => row.day === day)),
      budgets,
      paused: this.#paused,
    };
    const { home } = this.#instance;
    this.#state = {
      ...stateOf(budgets, this.#paused),
      // Not past budgets that are not known.
      ...(this.#budgets ? {} : {
        all: `The budgets in ${home.budgets} cannot be read; correct the file`,
      }),
      maxPerMinute: this.#maxPerMinute,
    };
  }

  /** Undefined if it cannot be read, which is logged once for each change of a file. */
  #tried<T>(read: () => T): T | undefined {
    try {
      return read();
    } catch (error) {
      this.#log(`warning: ${messageOf(error)}`);
      return undefined;
    }
  }

  /** Once for each level of a budget and period. */
  #warn(states: BudgetState[]): void {
    const levels = ["ok", "near", "spent"];
    const before = new Map(
      this.#status.budgets.map((budget) => [budgetKey(budget), budget]),
    );
    for (const budget of states) {
      const { level, session, project } = budget;
      const former = before.get(budgetKey(budget))?.level ?? "ok";
      if (levels.indexOf(level) <= levels.indexOf(former) || level === "ok") {
        continue;
      }
      const text = level === "near"
        ? nearMessage(budget)
        : spentMessage(budget);
      this.#notify(level, session, project, text);
    }
  }

  #write(): void {
    const status = this.#status;
    const urgent = JSON.stringify([status.limited, status.notices]);
    const now = this.#now();
    const isDue = now - this.#writtenAt >= writeMs ||
      urgent !== this.#urgent;
    if (!isDue) return;
    const text = JSON.stringify(status);
    if (text === this.#written) return;
    try {
      const { home, owner } = this.#instance;
      writeAtomic(home.usageStatus, text, owner);
      [this.#written, this.#writtenAt, this.#urgent] = [text, now, urgent];
      this.#failed = false;
    } catch (error) {
      if (!this.#failed) this.#log(`warning: ${messageOf(error)}`);
      [this.#failed, this.#writtenAt] = [true, now];
    }
  }
}

/** The same as long as it is for the same use and period, and not raised. */
const budgetKey = (
  { session, project, per, measure, limit, since }: BudgetState,
) => JSON.stringify([session, project, per, measure, limit, since]);

const emptyState: State = {
  version: 1,
  paused: {},
  sessions: {},
  projects: {},
  maxPerMinute: 0,
};

const emptyStatus: Status = {
  version: 1,
  day: "",
  today: {},
  budgets: [],
  paused: [],
  limit: null,
  limited: {},
  windows: [],
  notices: [],
};

function stateOf(budgets: BudgetState[], paused: Paused[]): State {
  const state: State = {
    ...emptyState,
    paused: Object.fromEntries(
      paused.map(({ session }) => [session, pausedMessage(session)]),
    ),
    sessions: {},
    projects: {},
  };
  for (const budget of budgets) {
    if (budget.level !== "spent") continue;
    const message = spentMessage(budget);
    if (budget.session !== null) state.sessions[budget.session] = message;
    else if (budget.project !== null) state.projects[budget.project] = message;
    else state.all = message;
  }
  return state;
}

function todayOf(rows: Row[]): Record<string, Today> {
  const sums = new Map<string, ReturnType<typeof noFigures>>();
  for (const row of rows) {
    const sum = sums.get(row.session) ?? noFigures();
    addFigures(sum, row);
    sums.set(row.session, sum);
  }
  const most = [...sums].sort(([, a], [, b]) => tokensOf(b) - tokensOf(a))
    .slice(0, maxToday);
  return Object.fromEntries(
    most.map(([session, sum]) => [session, {
      requests: sum.requests,
      tokens: tokensOf(sum),
      cost: costUsd(sum),
      unpriced: sum.unpriced,
    }]),
  );
}
