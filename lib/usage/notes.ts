// What the meter in the relay's process and the ledger in the parent tell each other.

import * as v from "valibot";
import { modelSchema } from "./figures.ts";

const count = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(4e9));
const ms = v.pipe(v.number(), v.minValue(0), v.maxValue(8e15));
const percent = v.pipe(v.number(), v.minValue(0), v.maxValue(10_000));
const word = v.pipe(v.string(), v.maxLength(40), v.regex(/^[\w-]*$/));

const from = {
  session: v.pipe(v.string(), v.minLength(1), v.maxLength(200)),
  project: v.pipe(v.string(), v.maxLength(8192)),
  at: ms,
};

export const windowSchema = v.object({
  name: word,
  percent,
  resetsAt: v.nullable(ms),
});

/** An increment of what was used. */
const replySchema = v.object({
  kind: v.literal("reply"),
  ...from,
  startedAt: ms,
  status: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(999)),
  /** 1 in the first note of a request, then 0. */
  requests: v.picklist([0, 1]),
  model: v.nullable(modelSchema),
  /** Of the whole request, as some prices depend on it. */
  promptTokens: count,
  input: count,
  output: count,
  cacheRead: count,
  cacheWrite: count,
  cacheWriteHour: count,
});

export type ReplyNote = v.InferOutput<typeof replySchema>;

export const noteSchema = v.variant("kind", [
  replySchema,
  v.object({
    kind: v.literal("limit"),
    ...from,
    resetsAt: ms,
    claim: word,
  }),
  v.object({
    kind: v.literal("windows"),
    at: ms,
    windows: v.pipe(v.array(windowSchema), v.maxLength(10)),
  }),
  v.object({
    kind: v.literal("runaway"),
    ...from,
    maxPerMinute: count,
  }),
]);

export type Note = v.InferOutput<typeof noteSchema>;

const messages = v.record(v.string(), v.string());

/** The messages of those that may not send, by name or path. */
export const stateSchema = v.object({
  version: v.literal(1),
  paused: messages,
  sessions: messages,
  projects: messages,
  all: v.optional(v.string()),
  /** 0 for no limit. */
  maxPerMinute: count,
});

export type State = v.InferOutput<typeof stateSchema>;
