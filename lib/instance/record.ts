// Records of workers, with what Docker does not store: sessions/<worker>.json.

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
    /** Device and inode number of its directory when the worker was created. */
    inode: v.optional(v.string()),
  }),
  /** What is mounted, if that is not the project but the session's copy of it. */
  workspace: v.optional(v.string()),
  image: v.string(),
  born: v.picklist(["cold", "warm"]),
  /** The worker's Claude home, relative to HAL9000_HOME. */
  home: v.pipe(v.string(), v.regex(/^(workers|claude)\/[^/.][^/]*$/)),
  /** Whether the home is removed with the worker, because the name was generated. */
  ephemeral: v.boolean(),
  /** Whether the worker was started for a single command, and is useless afterwards. */
  once: v.optional(v.boolean()),
  /** Whether it may change git's hooks and configuration. */
  unguarded: v.optional(v.boolean()),
  /** Whether it does not use the relay, although its container was made for that. */
  unrelayed: v.optional(v.boolean()),
  /** Its directory in HAL9000_HOME/secrets/workers; null if it has no secrets. */
  secrets: v.nullable(v.pipe(v.string(), v.regex(/^[^/.][^/]*$/))),
  /** The memory limit; null for none. */
  memoryBytes: v.nullable(v.number()),
  /** When it last ran out of memory, as far as that was noticed. */
  oomKilledAt: v.nullable(v.string()),
  createdAt: v.pipe(v.string(), v.isoTimestamp()),
});

export type WorkerRecord = v.InferOutput<typeof recordSchema>;

const endedSchema = v.object({
  ...recordSchema.entries,
  end: v.object({ at: v.string(), exitCode: v.nullable(v.number()) }),
});

export type EndedRecord = v.InferOutput<typeof endedSchema>;

/** How many records of ended workers are kept. */
const keptEndedRecords = 100;

type Home = Pick<Instance, "home" | "owner">;

/** Whether the record is valid. */
export function isRecord(record: WorkerRecord): boolean {
  return v.is(recordSchema, record);
}

export function writeRecord(home: Home, record: WorkerRecord): void {
  stageRecord(home, record).commit();
}

/** Prepares a record that takes effect when it is committed. */
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
  /** Null if it is not known. */
  exitCode: number | null;
}

/** Moves a record to the records of ended workers, and removes the oldest of these. */
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
    // The process that removed the container has the exit code and may be writing the record
    // right now, so do not overwrite a record of the same container.
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

/** The records of ended workers, newest first. */
export function readEndedRecords(home: Home, log?: Log): EndedRecord[] {
  return readRecordFiles(home, home.home.ended, endedSchema, log)
    .sort((a, b) => a.end.at < b.end.at ? 1 : -1);
}

/**
 * The record of a worker; undefined if it is missing or damaged. With `log`, a damaged
 * record is moved away and reported.
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
