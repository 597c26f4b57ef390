// In the parent: logs/egress.jsonl, a line of JSON for each decision of the proxy.

import * as v from "valibot";
import type { Instance } from "../instance/instance.ts";
import { Journal, readEntries } from "../instance/journal.ts";

const text = v.pipe(v.string(), v.maxLength(1024));
const bytes = v.pipe(v.number(), v.integer(), v.minValue(0));

export const entrySchema = v.object({
  time: v.pipe(v.string(), v.isoTimestamp()),
  session: v.nullable(text),
  /** Null if the connection is from no known worker. */
  worker: v.nullable(text),
  /** As it was requested, if it is not valid. */
  host: text,
  /** Null if it is not valid. */
  port: v.nullable(v.number()),
  /** The address that it was connected to. */
  address: v.optional(text),
  /** failed: allowed, but the server cannot be reached. */
  verdict: v.picklist(["allowed", "refused", "failed"]),
  rule: text,
  /** Names of the secrets that the request was sent with. */
  secrets: v.optional(v.array(text)),
  /** Why it was refused or failed. */
  reason: v.optional(v.pipe(v.string(), v.maxLength(4096))),
  /** Sent by the worker. */
  bytesUp: bytes,
  bytesDown: bytes,
  /** Entries of this worker that were left out, because there were too many. */
  dropped: v.optional(bytes),
});

export type Entry = v.InferOutput<typeof entrySchema>;

export function egressJournal(
  { home, owner }: Pick<Instance, "home" | "owner">,
  maxBytes?: number,
): Journal<Entry> {
  return new Journal(home.egressLog, owner, entrySchema, maxBytes);
}

/** The last entries, of one session if it is given, oldest first. */
export function lastEntries(
  { home }: Pick<Instance, "home">,
  count: number,
  session?: string,
): Entry[] {
  const found = readEntries(home.egressLog, entrySchema)
    .filter((entry) => session === undefined || entry.session === session);
  return count === 0 ? [] : found.slice(-count);
}
