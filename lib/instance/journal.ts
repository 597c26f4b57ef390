// A log of JSON lines that is rotated: logs/egress.jsonl, logs/relay.jsonl.

import { appendFileSync, chownSync, renameSync, statSync } from "node:fs";
import process from "node:process";
import type * as v from "valibot";
import { parseJson } from "../std/json.ts";
import type { Owner } from "../std/owned.ts";
import { readFileEnd } from "../std/plain-file.ts";

/** A file of this size becomes FILE.1, and so on. */
const maxFileBytes = 5 * 1024 ** 2;
const keptFiles = 3;

/** Longer than any entry. */
export const maxEntryBytes = 16 * 1024;

export class Journal<T> {
  readonly #path: string;
  readonly #owner: Owner;
  readonly #schema: v.GenericSchema<unknown, T>;
  readonly #maxBytes: number;

  constructor(
    path: string,
    owner: Owner,
    schema: v.GenericSchema<unknown, T>,
    maxBytes = maxFileBytes,
  ) {
    this.#path = path;
    this.#owner = owner;
    this.#schema = schema;
    this.#maxBytes = maxBytes;
  }

  /** Appends a line of JSON, if it is an entry. */
  append(line: string): void {
    const entry = parseJson(this.#schema, line);
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

/** The entries of a journal's last two files, oldest first. */
export function readEntries<T>(
  path: string,
  schema: v.GenericSchema<unknown, T>,
): T[] {
  return [`${path}.1`, path].flatMap((file) => {
    const end = readFileEnd(file, 0, 2 * maxFileBytes);
    const lines = end?.bytes.toString("utf8").split("\n") ?? [];
    return lines.flatMap((line) => parseJson(schema, line) ?? []);
  });
}

/** JSON without characters that a terminal would interpret. */
function ascii(json: string): string {
  return json.replace(
    /[^\x20-\x7e]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
