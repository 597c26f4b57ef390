// Budgets and limits as they are now: HAL9000_HOME/usage/status.json, which the ledger in
// the parent writes, for commands, claudy watch and the dashboard.

import * as v from "valibot";
import type { Instance } from "../instance/instance.ts";
import { readJson } from "../std/json.ts";
import { fileSignature } from "../std/plain-file.ts";
import { budgetSchema, costText, whoseText } from "./budgets.ts";
import { clockText, dayOf } from "./days.ts";
import { windowSchema } from "./notes.ts";
import { pausedSchema } from "./paused.ts";

const limitedSchema = v.object({
  project: v.string(),
  /** When it was refused, and when the limit resets, in milliseconds since 1970. */
  at: v.number(),
  resetsAt: v.number(),
});

const noticeSchema = v.object({
  at: v.pipe(v.string(), v.isoTimestamp()),
  kind: v.picklist(["near", "spent", "paused", "limit"]),
  /** Null if it is about several. */
  session: v.nullable(v.string()),
  project: v.nullable(v.string()),
  text: v.string(),
});

export type Notice = v.InferOutput<typeof noticeSchema>;

export const todaySchema = v.object({
  requests: v.number(),
  tokens: v.number(),
  /** In USD; null if no token of it has a price. */
  cost: v.nullable(v.number()),
  /** Tokens without a price. */
  unpriced: v.number(),
});

export type Today = v.InferOutput<typeof todaySchema>;

const statusSchema = v.object({
  version: v.literal(1),
  day: v.string(),
  /** By session. */
  today: v.record(v.string(), todaySchema),
  budgets: v.array(v.object({
    ...budgetSchema.entries,
    since: v.string(),
    until: v.string(),
    spent: v.number(),
    unpriced: v.number(),
    level: v.picklist(["ok", "near", "spent"]),
  })),
  paused: v.array(pausedSchema),
  /** The limit of the account that was reached. */
  limit: v.nullable(v.object({
    claim: v.string(),
    at: v.number(),
    resetsAt: v.number(),
  })),
  /** Sessions whose last request was refused for it, by name. */
  limited: v.record(v.string(), limitedSchema),
  windows: v.array(windowSchema),
  /** The last ones, oldest first. */
  notices: v.array(noticeSchema),
});

export type Status = v.InferOutput<typeof statusSchema>;

const maxBytes = 16 * 1024 ** 2;

/** Undefined if nothing was ever counted. */
export function readStatus(
  { home }: Pick<Instance, "home">,
): Status | undefined {
  return readJson(home.usageStatus, statusSchema, maxBytes);
}

/** Reads the status again only if it has changed. */
export class StatusFile {
  readonly #home: Pick<Instance, "home">;
  #signature = "";
  #status: Status | undefined;

  constructor(home: Pick<Instance, "home">) {
    this.#home = home;
  }

  read(): Status | undefined {
    const signature = fileSignature(this.#home.home.usageStatus);
    if (signature !== this.#signature) {
      this.#signature = signature;
      this.#status = readStatus(this.#home);
    }
    return this.#status;
  }
}

/** The notices that are new since the first call. */
export class NewNotices {
  #seen: Set<string> | undefined;

  from(status: Status | undefined): Notice[] {
    const all = (status?.notices ?? [])
      .map((notice) => [JSON.stringify(notice), notice] as const);
    const found = all.filter(([text]) => this.#seen && !this.#seen.has(text));
    this.#seen = new Set(all.map(([text]) => text));
    return found.map(([, notice]) => notice);
  }
}

/** What a session used today; null if nothing was counted. */
export function usedToday(
  status: Status | undefined,
  session: string | null,
  now: number,
): Today | null {
  const { day, today = {} } = status ?? {};
  return session !== null && day === dayOf(now) && Object.hasOwn(today, session)
    ? today[session] ?? null
    : null;
}

/** When the limit resets that a session waits for; undefined if it waits for none. */
export function limitedUntil(
  status: Status | undefined,
  session: string | null,
  now: number,
): number | undefined {
  const limited = status?.limited ?? {};
  const resetsAt = session !== null && Object.hasOwn(limited, session)
    ? limited[session]?.resetsAt
    : undefined;
  return resetsAt !== undefined && resetsAt > now ? resetsAt : undefined;
}

/** The cost of a day, or its tokens if they have no price. */
export function todayText(today: Today | null): string {
  if (!today) return "";
  const { cost, unpriced, tokens } = today;
  return cost === null ? `${tokens} tokens` : costText(cost, unpriced);
}

/** In one line: the limit that was reached, spent budgets, and paused sessions. */
export function alertsOf(status: Status | undefined, now: number): string[] {
  if (!status) return [];
  const { limit, budgets, paused, day } = status;
  const reached = limit && limit.resetsAt > now
    ? [`Limit reached, resets at ${clockText(limit.resetsAt, now)}`]
    : [];
  const spent = day === dayOf(now) ? budgets : [];
  return [
    ...reached,
    ...spent.filter(({ level }) => level !== "ok").map((budget) => {
      const share = Math.floor(budget.spent / budget.limit * 100);
      const how = budget.level === "spent" ? "spent" : `${share} % spent`;
      return `Budget of ${whoseText(budget)}: ${how}`;
    }),
    ...paused.map(({ session }) => `Paused: ${session}`),
  ];
}
