// In the parent: logs/egress.jsonl, a line of JSON for each decision of the proxy.

import { appendFileSync, chownSync, renameSync, statSync } from "node:fs";
import process from "node:process";
import * as v from "valibot";
import type { Instance } from "../instance/instance.ts";
import { parseJson } from "../std/json.ts";
import { readFileEnd } from "../std/plain-file.ts";

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
  /** Why it was refused or failed. */
  reason: v.optional(v.pipe(v.string(), v.maxLength(4096))),
  /** Sent by the worker. */
  bytesUp: bytes,
  bytesDown: bytes,
  /** Entries of this worker that were left out, because there were too many. */
  dropped: v.optional(bytes),
});

export type Entry = v.InferOutput<typeof entrySchema>;

/** A file of this size becomes egress.jsonl.1, and so on. */
const maxFileBytes = 5 * 1024 ** 2;
const keptFiles = 3;

/** Longer than any entry. */
export const maxEntryBytes = 16 * 1024;

export class Journal {
  readonly #path: string;
  readonly #owner: Instance["owner"];
  readonly #maxBytes: number;

  constructor(
    { home, owner }: Pick<Instance, "home" | "owner">,
    maxBytes = maxFileBytes,
  ) {
    this.#path = home.egressLog;
    this.#owner = owner;
    this.#maxBytes = maxBytes;
  }

  /** Appends a line of the proxy's output, if it is an entry. */
  append(line: string): void {
    const entry = parseJson(entrySchema, line);
    if (!entry) return;
    const size = statSync(this.#path, { throwIfNoEntry: false })?.size;
    if (size !== undefined && size >= this.#maxBytes) this.#rotate();
    appendFileSync(this.#path, `${ascii(JSON.stringify(entry))}\n`, {
      mode: 0o600,
    });
    if (process.getuid?.() === 0) {
      chownSync(this.#path, this.#owner.uid, this.#owner.gid);
    }
  }

  #rotate(): void {
    for (let number = keptFiles - 1; number >= 1; number--) {
      const older = number === 1 ? this.#path : `${this.#path}.${number - 1}`;
      if (statSync(older, { throwIfNoEntry: false })) {
        renameSync(older, `${this.#path}.${number}`);
      }
    }
  }
}

/** The last entries, of one session if it is given, oldest first. */
export function lastEntries(
  { home }: Pick<Instance, "home">,
  count: number,
  session?: string,
): Entry[] {
  const found: Entry[] = [];
  for (const path of [`${home.egressLog}.1`, home.egressLog]) {
    const end = readFileEnd(path, 0, 2 * maxFileBytes);
    for (const line of end?.bytes.toString("utf8").split("\n") ?? []) {
      const entry = parseJson(entrySchema, line);
      const isOther = session !== undefined && entry?.session !== session;
      if (entry && !isOther) found.push(entry);
    }
  }
  return count === 0 ? [] : found.slice(-count);
}

/** JSON without characters that a terminal would interpret. */
function ascii(json: string): string {
  return json.replace(
    /[^\x20-\x7e]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
