// What sessions used, in HAL9000_HOME/usage, which no worker can write. Increments are
// appended to records.N.jsonl. From time to time they are added to the daily sums of
// sums.json, which also has the number of the last file that it includes: so a kill at any
// moment loses nothing and counts nothing twice.

import {
  appendFileSync,
  chownSync,
  existsSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import process from "node:process";
import * as v from "valibot";
import type { Instance } from "../instance/instance.ts";
import type { HomePaths } from "../instance/paths.ts";
import { messageOf } from "../std/errors.ts";
import { parseJson } from "../std/json.ts";
import type { Log } from "../std/log.ts";
import { ensureDirectory, writeAtomic } from "../std/owned.ts";
import { plainText } from "../std/plain-file.ts";

const count = v.pipe(v.number(), v.minValue(0));

const keyEntries = {
  /** In the parent's time zone, which is the host's. */
  day: v.pipe(v.string(), v.isoDate()),
  /** "" for several of an old day. */
  session: v.string(),
  project: v.string(),
  /** "" if it is unknown. */
  model: v.string(),
};

const figuresEntries = {
  requests: count,
  input: count,
  output: count,
  cacheRead: count,
  cacheWrite: count,
  /** In millionths of a USD, of the tokens that have a price. */
  cost: count,
  /** Tokens that have none. */
  unpriced: count,
};

/** An increment. */
const recordSchema = v.object({
  at: v.pipe(v.string(), v.isoTimestamp()),
  ...keyEntries,
  status: v.number(),
  ...figuresEntries,
});

export type UsageRecord = v.InferOutput<typeof recordSchema>;

/** The sum of a day, session and model. */
const rowSchema = v.object({
  ...keyEntries,
  ...figuresEntries,
  /** Number of requests that failed, by their status. */
  errors: v.record(v.string(), count),
});

export type Row = v.InferOutput<typeof rowSchema>;

const sumsSchema = v.object({
  version: v.literal(1),
  /** Number of the last file of records that is included. */
  through: count,
  rows: v.array(rowSchema),
});

type Sums = v.InferOutput<typeof sumsSchema>;

/**
 * The last days that are kept, and the most rows. Of the oldest days beyond that, sessions of
 * a project are summed: each `claudy run` has a row of its own.
 */
const keptDays = 400;
const maxRows = 20_000;

/** A file of records is added to the sums at this size. */
const maxRecordsBytes = 1024 ** 2;

const maxSumsBytes = 64 * 1024 ** 2;

type Home = Pick<Instance, "home" | "owner">;

export class Records {
  readonly #instance: Home;
  readonly #log: Log;
  readonly #maxBytes: number;
  #rows = new Map<string, Row>();
  #number = 1;
  #bytes = 0;
  #failed = false;

  /** Adds what a former process has left to the sums. */
  constructor(instance: Home, log: Log, maxBytes = maxRecordsBytes) {
    this.#instance = instance;
    this.#log = log;
    this.#maxBytes = maxBytes;
    this.#unlessFailing(() => this.#load());
  }

  #load(): void {
    const { home, owner } = this.#instance;
    for (const path of [home.usage, home.usagePaused]) {
      ensureDirectory(path, 0o700, owner);
    }
    setDamagedAside(home, this.#log);
    const { through, rows } = readSums(home);
    const numbers = recordNumbers(home);
    this.#rows = summed(home, rows, numbers.filter((each) => each > through));
    // Not the last file: its last line may not be whole.
    this.#number = Math.max(through, ...numbers) + 1;
    this.#addToSums();
  }

  /** On a full disk, for instance: it is reported once, and counted in memory. */
  #unlessFailing(act: () => void): void {
    try {
      act();
      this.#failed = false;
    } catch (error) {
      if (!this.#failed) {
        this.#log(`warning: usage is not saved: ${messageOf(error)}`);
      }
      this.#failed = true;
    }
  }

  get rows(): Iterable<Row> {
    return this.#rows.values();
  }

  add(record: UsageRecord): void {
    addRecord(this.#rows, record);
    this.#unlessFailing(() => {
      const path = this.#instance.home.usageRecords(this.#number);
      const line = `${JSON.stringify(record)}\n`;
      appendFileSync(path, line, { mode: 0o600 });
      if (this.#bytes === 0) own(path, this.#instance.owner);
      this.#bytes += line.length;
      if (this.#bytes >= this.#maxBytes) this.#addToSums();
    });
  }

  #addToSums(): void {
    const { home, owner } = this.#instance;
    this.#rows = bounded(this.#rows);
    const sums: Sums = {
      version: 1,
      through: this.#number,
      rows: [...this.#rows.values()],
    };
    writeAtomic(home.usageSums, JSON.stringify(sums), owner);
    // From here on, the files up to this one are not read any more.
    for (const number of recordNumbers(home)) {
      if (number <= sums.through) rmSync(home.usageRecords(number));
    }
    this.#number++;
    this.#bytes = 0;
  }
}

/** All rows, also while the parent adds records to the sums. */
export function readRows(home: HomePaths): Row[] {
  for (let attempt = 0;; attempt++) {
    const { through, rows } = readSums(home);
    const numbers = recordNumbers(home).filter((each) => each > through);
    const all = summed(home, rows, numbers);
    // If a file was added to the sums meanwhile, it may have been missed.
    if (readSums(home).through === through || attempt === 5) {
      return [...all.values()];
    }
  }
}

function readSums(home: HomePaths): Sums {
  const text = plainText(home.usageSums, { maxBytes: maxSumsBytes });
  return parseJson(sumsSchema, text) ?? { version: 1, through: 0, rows: [] };
}

/** What cannot be read is kept for a person to look at. */
function setDamagedAside(home: HomePaths, log: Log): void {
  if (!existsSync(home.usageSums)) return;
  const text = plainText(home.usageSums, { maxBytes: maxSumsBytes });
  if (parseJson(sumsSchema, text)) return;
  const aside = `${home.usageSums}.damaged`;
  renameSync(home.usageSums, aside);
  log(`warning: ${home.usageSums} is damaged; it was moved to ${aside}`);
}

function recordNumbers(home: HomePaths): number[] {
  if (!existsSync(home.usage)) return [];
  return readdirSync(home.usage).flatMap((name) => {
    const [, number] = /^records\.(\d{1,12})\.jsonl$/.exec(name) ?? [];
    return number === undefined ? [] : [Number(number)];
  }).sort((a, b) => a - b);
}

function summed(
  home: HomePaths,
  rows: Row[],
  numbers: number[],
): Map<string, Row> {
  const all = new Map(rows.map((row) => [keyOf(row), { ...row }]));
  for (const number of numbers) {
    const path = home.usageRecords(number);
    const text = plainText(path, { maxBytes: maxSumsBytes }) ?? "";
    for (const line of text.split("\n")) {
      // The last line of a process that was killed may not be whole.
      const record = parseJson(recordSchema, line || undefined);
      if (record) addRecord(all, record);
    }
  }
  return all;
}

function addRecord(rows: Map<string, Row>, record: UsageRecord): void {
  const { day, session, project, model, status } = record;
  const key = keyOf(record);
  const row = rows.get(key) ??
    { day, session, project, model, ...noFigures(), errors: {} };
  addFigures(row, record);
  if (status >= 400 && record.requests > 0) {
    row.errors = addErrors(row.errors, { [status]: record.requests });
  }
  rows.set(key, row);
}

export type RowFigures = Omit<Row, keyof typeof keyEntries | "errors">;

export const noFigures = (): RowFigures => ({
  requests: 0,
  input: 0,
  output: 0,
  cacheRead: 0,
  cacheWrite: 0,
  cost: 0,
  unpriced: 0,
});

export function addFigures(sum: RowFigures, added: RowFigures): void {
  for (const key of Object.keys(noFigures()) as (keyof RowFigures)[]) {
    sum[key] += added[key];
  }
}

type Key = Pick<Row, keyof typeof keyEntries>;

const keyOf = ({ day, session, project, model }: Key) =>
  JSON.stringify([day, session, project, model]);

function bounded(rows: Map<string, Row>): Map<string, Row> {
  const days = new Map<string, Row[]>();
  for (const row of rows.values()) {
    const ofDay = days.get(row.day) ?? [];
    ofDay.push(row);
    days.set(row.day, ofDay);
  }
  const newest = [...days.keys()].sort().reverse().slice(0, keptDays);
  const kept: Row[] = [];
  for (const day of newest) {
    const ofDay = days.get(day) ?? [];
    const fits = kept.length + ofDay.length <= maxRows;
    kept.push(...(fits ? ofDay : withoutSessions(ofDay)));
  }
  return new Map(kept.slice(0, maxRows).map((row) => [keyOf(row), row]));
}

function withoutSessions(rows: Row[]): Row[] {
  const sums = new Map<string, Row>();
  for (const row of rows) {
    const sum = { ...row, session: "" };
    const key = keyOf(sum);
    const known = sums.get(key);
    if (!known) {
      sums.set(key, sum);
      continue;
    }
    addFigures(known, row);
    known.errors = addErrors(known.errors, row.errors);
  }
  return [...sums.values()];
}

export function addErrors(
  errors: Row["errors"],
  added: Row["errors"],
): Row["errors"] {
  const sum = { ...errors };
  for (const [status, count] of Object.entries(added)) {
    sum[status] = (sum[status] ?? 0) + count;
  }
  return sum;
}

function own(path: string, { uid, gid }: Instance["owner"]): void {
  if (process.getuid?.() === 0 && statSync(path).uid !== uid) {
    chownSync(path, uid, gid);
  }
}
