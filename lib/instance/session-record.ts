// Records of sessions, kept with or without a worker: sessions/kept/<session>.json.

import { rmSync } from "node:fs";
import * as v from "valibot";
import type { Instance } from "./instance.ts";
import type { Log } from "../std/log.ts";
import { permissionModeSchema } from "./permission-mode.ts";
import { writeAtomic } from "../std/owned.ts";
import { cacheKinds, workerNetworks } from "./settings.ts";
import { readRecordFile, readRecordFiles } from "./record-file.ts";

const sessionSchema = v.object({
  version: v.literal(1),
  name: v.string(),
  project: v.string(),
  createdAt: v.pipe(v.string(), v.isoTimestamp()),
  /** When it was last opened. */
  usedAt: v.pipe(v.string(), v.isoTimestamp()),
  /** The first port of its range; undefined until a range is reserved. */
  portBase: v.optional(v.number()),
  /** The chosen profile; undefined to detect it from the project's files. */
  profile: v.optional(v.string()),
  /** Whether it works in a copy of the project, see lib/workspace. */
  copy: v.optional(v.literal(true)),
  /** The conversation that it begins with, of the session that it was forked from. */
  forkOf: v.optional(v.pipe(v.string(), v.regex(/^[\w-]{1,64}$/))),
  /** That session, for the others that were forked from it. */
  forkedFrom: v.optional(v.string()),
  /** The repository outside of the project that is mounted so that git works. */
  repository: v.optional(v.string()),
  /** The host's MCP servers that it may use; undefined for all. */
  mcp: v.optional(v.union([v.boolean(), v.array(v.string())])),
  /** The network of its workers, if it was chosen; undefined for WORKER_NETWORK. */
  network: v.optional(v.picklist(workerNetworks)),
  /** The package caches of its workers, if chosen; undefined for WORKER_CACHES. */
  caches: v.optional(v.array(v.picklist(cacheKinds))),
  /** The permission mode that Claude was last started in; undefined for its own default. */
  permissionMode: v.optional(permissionModeSchema),
  permissionModeFrom: v.optional(v.picklist(["option", "setting"])),
});

export type SessionRecord = v.InferOutput<typeof sessionSchema>;

type Home = Pick<Instance, "home" | "owner">;

export function writeSession({ home, owner }: Home, record: SessionRecord) {
  const text = JSON.stringify(record, null, 2) + "\n";
  writeAtomic(home.session(record.name), text, owner);
}

/** Undefined if missing or damaged; a damaged record is moved away and reported. */
export function readSession(
  home: Home,
  name: string,
  log?: Log,
): SessionRecord | undefined {
  // Do not use a path as a name.
  if (!/^[\w.-]{2,63}$/.test(name) || name.startsWith(".")) return undefined;
  return readRecordFile(home, home.home.session(name), sessionSchema, log);
}

/** All session records, most recently used first. */
export function readSessions(home: Home, log?: Log): SessionRecord[] {
  return readRecordFiles(home, home.home.kept, sessionSchema, log)
    .sort((a, b) => a.usedAt < b.usedAt ? 1 : -1);
}

export function removeSessionRecord(
  { home }: Pick<Instance, "home">,
  name: string,
): void {
  rmSync(home.session(name), { force: true });
}
