// A line of logs/relay.jsonl: no bodies, no headers, and paths without their query.

import * as v from "valibot";

const text = v.pipe(v.string(), v.maxLength(1024));
const count = v.pipe(v.number(), v.integer(), v.minValue(0));

export const entrySchema = v.object({
  time: v.pipe(v.string(), v.isoTimestamp()),
  /** Null if the request is from no known session. */
  session: v.nullable(text),
  worker: v.nullable(text),
  method: text,
  path: text,
  /** What the worker got; null if it has left before. */
  status: v.nullable(count),
  model: v.optional(text),
  /** Tokens. */
  input: v.optional(count),
  output: v.optional(count),
  cacheRead: v.optional(count),
  cacheWrite: v.optional(count),
  ms: count,
  bytesUp: count,
  bytesDown: count,
  /** Why the relay refused it, or what failed. */
  reason: v.optional(text),
  /** Entries of this worker that were left out, because there were too many. */
  dropped: v.optional(count),
});

export type Entry = v.InferOutput<typeof entrySchema>;
