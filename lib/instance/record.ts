// What is kept of a worker besides Docker's own word: sessions/<worker>.json.

import { rmSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import type { Instance } from "./instance.ts";
import type { Log } from "../std/log.ts";
import {
  ensureDirectory,
  keepNewest,
  type Staged,
  stageFile,
  writeAtomic,
  writeNew,
} from "../std/owned.ts";
import { readRecordFile, readRecordFiles } from "./record-file.ts";

export const recordSchema = v.object({
  version: v.literal(1),
  /** The container's name. */
  worker: v.string(),
  container: v.string(),
  session: v.nullable(v.string()),
  project: v.object({
    path: v.string(),
    uid: v.number(),
    gid: v.number(),
  }),
  image: v.string(),
  born: v.picklist(["cold", "warm"]),
  /** Of HAL9000_HOME: the directory that is the worker's Claude home. */
  home: v.pipe(v.string(), v.regex(/^(workers|claude)\/[^/.][^/]*$/)),
  /** Whether that goes with the worker: its name was made up, and is not to come again. */
  ephemeral: v.boolean(),
  /** Whether it is there for one command, and of no use when that has ended. */
  once: v.optional(v.boolean()),
  /** Of HAL9000_HOME/secrets/workers, where it was given secrets. */
  secrets: v.nullable(v.pipe(v.string(), v.regex(/^[^/.][^/]*$/))),
  /** Its limit; null for none. */
  memoryBytes: v.nullable(v.number()),
  /** When it was last found to have run out of memory. */
  oomKilledAt: v.nullable(v.string()),
  createdAt: v.pipe(v.string(), v.isoTimestamp()),
});

export type WorkerRecord = v.InferOutput<typeof recordSchema>;

const endedSchema = v.object({
  ...recordSchema.entries,
  end: v.object({ at: v.string(), exitCode: v.nullable(v.number()) }),
});

export type EndedRecord = v.InferOutput<typeof endedSchema>;

/** Enough to look back at; the rest would only pile up. */
const keptEndedRecords = 100;

type Home = Pick<Instance, "home" | "owner">;

/** Whether it could be read again. */
export function isRecord(record: WorkerRecord): boolean {
  return v.is(recordSchema, record);
}

export function writeRecord(home: Home, record: WorkerRecord): void {
  stageRecord(home, record).commit();
}

/** A record that is to hold from its commit on. */
export function stageRecord(
  { home, owner }: Home,
  record: WorkerRecord,
  options: { sync?: boolean } = {},
): Staged {
  const text = JSON.stringify(record, null, 2) + "\n";
  return stageFile(home.record(record.worker), text, owner, options);
}

/** How a worker ended. */
export interface WorkerEnd {
  at: string;
  /** Null where nobody was there to see it. */
  exitCode: number | null;
}

/** Moves a record to those of ended workers, of which the newest are kept. */
export function closeRecord(
  home: Home,
  record: WorkerRecord,
  end: WorkerEnd,
): void {
  const { ended } = home.home;
  ensureDirectory(ended, 0o700, home.owner);
  const path = join(ended, `${record.worker}.json`);
  const text = JSON.stringify({ ...record, end }, null, 2) + "\n";
  if (end.exitCode !== null) writeAtomic(path, text, home.owner);
  else {
    // Who removed the container knows more than who found it gone, and may be
    // writing at this moment.
    const before = readRecordFile(home, path, endedSchema);
    if (before && before.container !== record.container) {
      rmSync(path, { force: true });
    }
    writeNew(path, text, home.owner);
  }
  removeRecord(home, record.worker);
  rmSync(home.home.claim(record.container), { force: true });
  keepNewest(ended, ".json", keptEndedRecords);
}

export function removeRecord(
  { home }: Pick<Instance, "home">,
  worker: string,
): void {
  rmSync(home.record(worker), { force: true });
}

/** The records of workers that have ended, the latest first. */
export function readEndedRecords(home: Home, log?: Log): EndedRecord[] {
  return readRecordFiles(home, home.home.ended, endedSchema, log)
    .sort((a, b) => a.end.at < b.end.at ? 1 : -1);
}

/**
 * The record of a worker, undefined where there is none. A damaged one is moved
 * aside and reported to `log`; it is no reason to stop.
 */
export function readRecord(
  home: Home,
  worker: string,
  log?: Log,
): WorkerRecord | undefined {
  return readRecordFile(home, home.home.record(worker), recordSchema, log);
}

export function readRecords(home: Home, log?: Log): WorkerRecord[] {
  return readRecordFiles(home, home.home.sessions, recordSchema, log);
}
