// What is kept of a worker besides Docker's own word: sessions/<worker>.json.

import { readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import * as v from "valibot";
import type { Instance } from "./instance.ts";
import type { Log } from "./log.ts";
import { ensureDirectory, writeWhole } from "./owned.ts";

const recordSchema = v.object({
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
  home: v.pipe(v.string(), v.regex(/^(workers|claude)\/[^/]+$/)),
  createdAt: v.pipe(v.string(), v.isoTimestamp()),
});

export type WorkerRecord = v.InferOutput<typeof recordSchema>;

type Home = Pick<Instance, "home" | "owner">;

export function writeRecord({ home, owner }: Home, record: WorkerRecord): void {
  const text = JSON.stringify(record, null, 2) + "\n";
  writeWhole(home.record(record.worker), text, owner);
}

export function removeRecord({ home }: Home, worker: string): void {
  rmSync(home.record(worker), { force: true });
}

/**
 * The record of a worker, undefined where there is none. A damaged one is moved
 * aside and told to `log`; it is no reason to stop.
 */
export function readRecord(
  { home, owner }: Home,
  worker: string,
  log: Log,
): WorkerRecord | undefined {
  const path = home.record(worker);
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  const result = v.safeParse(recordSchema, parseJson(text));
  if (result.success) return result.output;
  const damaged = join(home.sessions, "damaged");
  ensureDirectory(damaged, 0o700, owner);
  renameSync(path, join(damaged, `${basename(path)}.${Date.now()}`));
  log(`Record of "${worker}" is damaged; it was moved to ${damaged}`);
  return undefined;
}

export function readRecords(home: Home, log: Log): WorkerRecord[] {
  return readdirSync(home.home.sessions)
    .filter((file) => file.endsWith(".json"))
    .flatMap((file) => readRecord(home, basename(file, ".json"), log) ?? []);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
