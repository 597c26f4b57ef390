// Saves what belongs to a session that is being opened: its record and its port range.

import type { Instance } from "../instance/instance.ts";
import { freePorts, reservePorts } from "../instance/port-range.ts";
import {
  type PermissionMode,
  type StartMode,
  startMode,
} from "../instance/permission-mode.ts";
import {
  readSession,
  removeSessionRecord,
  type SessionRecord,
  writeSession,
} from "../instance/session-record.ts";
import type { CacheKind, WorkerNetwork } from "../instance/settings.ts";
import type { Choice } from "../mcp/offer.ts";
import {
  formerSessionName,
  type Project,
  sessionName,
} from "../project/project.ts";
import { Failure, messageOf } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { stopWorker } from "../worker/ending.ts";
import { listWorkers, type WorkerState } from "../worker/workers.ts";
import { removeSessionHome } from "./session.ts";

export interface SessionToSave {
  session: string;
  project: Project;
  /** Whether the session works in a copy of the project. */
  isCopy: boolean;
  /** The session's record; undefined if it is new. */
  before: SessionRecord | undefined;
  /** Whether the session has no Claude home yet. */
  homeIsNew: boolean;
  /** The profile to save; undefined for the detected one. */
  chosenProfile: string | undefined;
  /** The MCP servers to save; undefined keeps the saved ones. */
  mcp: Choice | undefined;
  /** The network that the user asks for; undefined keeps the saved one. */
  network: WorkerNetwork | undefined;
  /** The package caches that the user asks for; undefined keeps the saved ones. */
  caches: readonly CacheKind[] | undefined;
  /** The permission mode that the user asks for; undefined keeps the saved one. */
  permissionMode: PermissionMode | undefined;
}

/** The project's default session name; a session migrated from 0.5 keeps its old name. */
export function defaultSessionName(
  instance: Instance,
  { path }: Project,
  log: Log,
): string {
  const name = sessionName(path);
  const former = formerSessionName(path);
  if (name === former || readSession(instance, name, log)) return name;
  return readSession(instance, former, log) ? former : name;
}

/** The saved record, if any. Throws a `busy` Failure if it belongs to another project. */
export function existingRecord(
  instance: Instance,
  session: string,
  { path }: Project,
  log: Log,
): SessionRecord | undefined {
  const before = readSession(instance, session, log);
  if (!before || before.project === path) return before;
  throw new Failure(
    "busy",
    `Cannot open session "${session}" here: it belongs to ${before.project}`,
    {
      hint: "Choose another --name.",
    },
  );
}

const modeOf = (before: SessionRecord | undefined): StartMode => ({
  permissionMode: before?.permissionMode,
  permissionModeFrom: before?.permissionModeFrom,
});

/**
 * Writes the session's record and reserves its ports. Reads the record again before:
 * another process may have changed it while the user was asked or an image was built.
 */
export function saveSession(
  instance: Instance,
  toSave: SessionToSave,
  { claudeRuns }: { claudeRuns: boolean },
  log: Log,
): SessionRecord {
  const {
    session,
    project,
    chosenProfile,
    mcp,
    network,
    caches,
    permissionMode,
  } = toSave;
  const before = existingRecord(instance, session, project, log);
  toSave.before = before;
  const usedAt = new Date().toISOString();
  const record: SessionRecord = {
    version: 1,
    name: session,
    project: project.path,
    createdAt: before?.createdAt ?? usedAt,
    usedAt,
    portBase: before?.portBase,
    ...(toSave.isCopy ? { copy: true } : {}),
    ...(before?.forkOf === undefined ? {} : { forkOf: before.forkOf }),
    ...(before?.forkedFrom === undefined
      ? {}
      : { forkedFrom: before.forkedFrom }),
    profile: chosenProfile,
    repository: before?.repository,
    mcp: mcp ?? before?.mcp,
    network: network ?? before?.network,
    caches: caches ? [...caches] : before?.caches,
    // That of a running Claude was decided when it started.
    ...(claudeRuns
      ? modeOf(before)
      : startMode(instance, project.path, permissionMode, before)),
  };
  writeSession(instance, record);
  if (record.portBase !== undefined) return record;
  try {
    // After the record: a range without a record counts as free.
    record.portBase = reservePorts(instance, session);
    writeSession(instance, record);
  } catch (error) {
    if (!before) removeSessionRecord(instance, session);
    throw error;
  }
  return record;
}

/** Throws if another command has renamed or removed the session meanwhile. */
export async function requireSession(
  instance: Instance,
  session: string,
  worker: Pick<WorkerState, "name" | "id">,
  log: Log,
): Promise<void> {
  if (readSession(instance, session, log)) return;
  await stopWorker(instance, worker, log);
  // The worker's: that of the session was moved or removed before its record.
  await removeSessionHome(instance, session);
  throw new Failure("busy", `Session "${session}" was renamed or removed`, {
    hint: "See claudy sessions.",
  });
}

/**
 * Undoes saveSession() if no worker could be started: removes a new session, and
 * restores the record of an existing one. Does nothing if another process has opened
 * the session since.
 */
export async function undoSave(
  instance: Instance,
  { before, homeIsNew }: SessionToSave,
  { name, usedAt, portBase }: SessionRecord,
  log: Log,
): Promise<void> {
  try {
    const workers = before ? [] : await listWorkers(instance);
    // After the engine's answer: meanwhile another process could open the session.
    if (readSession(instance, name, log)?.usedAt !== usedAt) return;
    if (before) return writeSession(instance, { ...before, usedAt, portBase });
    if (workers.some(({ session }) => session === name)) return;
    if (portBase !== undefined) freePorts(instance, name, portBase);
    if (homeIsNew) await removeSessionHome(instance, name);
    removeSessionRecord(instance, name);
  } catch (error) {
    // Only a warning, so that the user sees the error that made the start fail.
    log(`warning: Cannot remove session "${name}": ${messageOf(error)}`);
  }
}
