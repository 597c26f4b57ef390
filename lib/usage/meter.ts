// Runs in the relay's process, which has no access to HAL9000_HOME: counts what passes, and
// refuses what the parent's ledger has decided to refuse. See ledger.ts.

import * as v from "valibot";
import { type Figures, noFigures, readerFor } from "./figures.ts";
import { headerOf, type Headers, limitIn, windowsIn } from "./limit-headers.ts";
import { type Note, type State, stateSchema } from "./notes.ts";

export interface Exchange {
  /** The session's name, or the worker's if it has no session. */
  session: string;
  /** Path of the project, "" if it is unknown. */
  project: string;
  method: string;
  path: string;
  /** When it began, in milliseconds since 1970. */
  at: number;
}

/** An error in the API's own form, whose message the CLI shows. */
export interface Refusal {
  status: number;
  type: string;
  message: string;
  headers?: Record<string, string>;
}

export interface ReplyObserver {
  bytes(chunk: Uint8Array): void;
  end(how: "whole" | "cut"): ReplyFigures;
}

export interface ReplyFigures {
  model?: string;
  input: number;
  output: number;
  cacheRead: number;
  cacheWrite: number;
}

export interface Meter {
  /** The ledger's state, each time it has changed. */
  setState(state: unknown): void;
  /** Undefined if the request may be sent. */
  admit(exchange: Exchange): Refusal | undefined;
  /** Observes the body of a reply. */
  reply(exchange: Exchange, status: number, headers: Headers): ReplyObserver;
}

/** `tell` carries notes to the ledger. */
export function createMeter(
  tell: (note: Note) => void,
  now = () => Date.now(),
): Meter {
  return new RelayMeter(tell, now);
}

const minuteMs = 60_000;

/** How long the ledger may take to take note of a pause. */
const settleMs = 5000;

class RelayMeter implements Meter {
  readonly #tell: (note: Note) => void;
  readonly #now: () => number;
  #state: State | undefined;
  /** Times of the requests of the last minute, by session. */
  readonly #recent = new Map<string, number[]>();
  /** When sessions were paused here, until the ledger's state has it. */
  readonly #paused = new Map<string, number>();
  /** The last windows that were told, as text. */
  #windows = "";

  constructor(tell: (note: Note) => void, now: () => number) {
    this.#tell = tell;
    this.#now = now;
  }

  setState(state: unknown): void {
    const parsed = v.safeParse(stateSchema, state);
    // Of another version, or damaged: nothing is known.
    this.#state = parsed.success ? parsed.output : undefined;
    for (const [session, at] of this.#paused) {
      const isKnown = own(this.#state?.paused ?? {}, session) !== undefined;
      if (isKnown || this.#now() - at > settleMs) this.#paused.delete(session);
    }
  }

  admit(exchange: Exchange): Refusal | undefined {
    if (!isCounted(exchange)) return undefined;
    const state = this.#state;
    if (!state) return notReady;
    const { session, project } = exchange;
    const message = own(state.paused, session) ??
      own(state.sessions, session) ?? own(state.projects, project) ??
      state.all ??
      (this.#paused.has(session) ? pausedMessage(session) : undefined) ??
      this.#count(session, project, state.maxPerMinute);
    return message === undefined ? undefined : refusal(message);
  }

  /** Counts a request; pauses its session if there are too many. */
  #count(
    session: string,
    project: string,
    maxPerMinute: number,
  ): string | undefined {
    if (maxPerMinute === 0) return undefined;
    const now = this.#now();
    const recent = (this.#recent.get(session) ?? [])
      .filter((at) => now - at < minuteMs);
    this.#recent.set(session, recent);
    if (recent.length < maxPerMinute) {
      recent.push(now);
      return undefined;
    }
    this.#recent.delete(session);
    this.#paused.set(session, now);
    this.#tell({ kind: "runaway", session, project, at: now, maxPerMinute });
    return pausedMessage(session);
  }

  reply(exchange: Exchange, status: number, headers: Headers): ReplyObserver {
    if (!isCounted(exchange)) return unobserved;
    const { session, project } = exchange;
    const at = this.#now();
    const limit = limitIn(status, headers, at);
    if (limit) this.#tell({ kind: "limit", session, project, at, ...limit });
    const windows = windowsIn(headers);
    const text = JSON.stringify(windows);
    if (windows.length > 0 && text !== this.#windows) {
      this.#windows = text;
      this.#tell({ kind: "windows", at, windows });
    }
    return this.#observer(exchange, status, headers);
  }

  #observer(
    { session, project, at: startedAt }: Exchange,
    status: number,
    headers: Headers,
  ): ReplyObserver {
    let told: Figures | undefined;
    // Increments, so that the sum is right wherever this process ends.
    const tell = (figures: Figures) => {
      const before = told ?? noFigures;
      this.#tell({
        kind: "reply",
        session,
        project,
        at: this.#now(),
        startedAt,
        status,
        requests: told ? 0 : 1,
        model: figures.model ?? null,
        promptTokens: figures.input + figures.cacheRead + figures.cacheWrite,
        input: figures.input - before.input,
        output: figures.output - before.output,
        cacheRead: figures.cacheRead - before.cacheRead,
        cacheWrite: figures.cacheWrite - before.cacheWrite,
        cacheWriteHour: figures.cacheWriteHour - before.cacheWriteHour,
      });
      told = figures;
    };
    const reader = readerFor(
      status < 400 ? headerOf(headers, "content-type") : "",
      headerOf(headers, "content-encoding"),
      () => told ?? tell(reader.figures),
    );
    return {
      bytes: (chunk) => reader.bytes(chunk),
      end: (how) => {
        if (how === "whole") reader.end();
        else reader.cut();
        const { figures } = reader;
        if (told !== figures) tell(figures);
        const { model, input, output, cacheRead, cacheWrite } = figures;
        return {
          ...(model === undefined ? {} : { model }),
          input,
          output,
          cacheRead,
          cacheWrite,
        };
      },
    };
  }
}

/** A session may have the name of a property that all objects have. */
function own<T>(values: Record<string, T>, name: string): T | undefined {
  return Object.hasOwn(values, name) ? values[name] : undefined;
}

/** Whether a request costs tokens. */
export function isCounted(
  { method, path }: Pick<Exchange, "method" | "path">,
): boolean {
  return method === "POST" &&
    /\/v1\/messages(\/cache_touch)?\/?(\?|$)/.test(path);
}

const unobserved: ReplyObserver = {
  bytes: () => {},
  end: () => ({ input: 0, output: 0, cacheRead: 0, cacheWrite: 0 }),
};

/** The CLI shows its message at once, and does not retry: tried with 2.1.296. */
const refusal = (message: string): Refusal => ({
  status: 402,
  type: "billing_error",
  message,
});

/** The CLI retries it. */
const notReady: Refusal = {
  status: 529,
  type: "overloaded_error",
  message: "The budgets are not known yet",
  headers: { "retry-after": "1" },
};

export function pausedMessage(session: string): string {
  return `Session ${session} is paused: it sent too many requests in a minute. ` +
    `Let it go on with: claudy budget release ${session}`;
}
