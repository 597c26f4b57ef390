// What is kept of a session that is opened: its record and its range of ports.

import type { Instance } from "../instance/instance.ts";
import { freePorts, reservePorts } from "../instance/port-range.ts";
import {
  readSession,
  removeSessionRecord,
  type SessionRecord,
  writeSession,
} from "../instance/session-record.ts";
import type { Choice } from "../mcp/offer.ts";
import {
  formerSessionName,
  type Project,
  sessionName,
} from "../project/project.ts";
import { Failure, messageOf } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { listWorkers } from "../worker/workers.ts";
import { removeSessionHome } from "./session.ts";

export interface SessionToKeep {
  session: string;
  project: Project;
  /** The record of a session that was opened before. */
  before: SessionRecord | undefined;
  /** Whether it has no Claude home yet. */
  homeIsNew: boolean;
  /** The profile to remember; undefined for the detected one. */
  chosenProfile: string | undefined;
  /** The servers to remember; undefined for those it had. */
  mcp: Choice | undefined;
}

/** That of the path, or the one that version 0.5 gave where it was migrated. */
export function nameOf(
  instance: Instance,
  { path }: Project,
  log: Log,
): string {
  const name = sessionName(path);
  const former = formerSessionName(path);
  if (name === former || readSession(instance, name, log)) return name;
  return readSession(instance, former, log) ? former : name;
}

/** What is kept of a session. Refuses a name that another project's session has. */
export function knownSession(
  instance: Instance,
  session: string,
  { path }: Project,
  log: Log,
): SessionRecord | undefined {
  const before = readSession(instance, session, log);
  if (!before || before.project === path) return before;
  throw new Failure("busy", `Session "${session}" is of ${before.project}`, {
    hint: "Choose another --name.",
  });
}

/** Writes the record of the session that is opened, and reserves its ports. */
export function remember(
  instance: Instance,
  { session, project, before, chosenProfile, mcp }: SessionToKeep,
): SessionRecord {
  const usedAt = new Date().toISOString();
  const record: SessionRecord = {
    version: 1,
    name: session,
    project: project.path,
    createdAt: before?.createdAt ?? usedAt,
    usedAt,
    portBase: before?.portBase,
    profile: chosenProfile,
    repository: before?.repository,
    mcp: mcp ?? before?.mcp,
  };
  writeSession(instance, record);
  if (record.portBase !== undefined) return record;
  try {
    // After the record: a range without one would be free for others.
    record.portBase = reservePorts(instance, session);
    writeSession(instance, record);
  } catch (error) {
    if (!before) removeSessionRecord(instance, session);
    throw error;
  }
  return record;
}

/**
 * Removes what was kept of a new session that got no worker, unless another process
 * has opened it since. A session that was opened before keeps its former choices.
 */
export async function takeBack(
  instance: Instance,
  { before, homeIsNew }: SessionToKeep,
  { name, usedAt, portBase }: SessionRecord,
  log: Log,
): Promise<void> {
  try {
    if (readSession(instance, name, log)?.usedAt !== usedAt) return;
    if (before) return writeSession(instance, { ...before, usedAt, portBase });
    const workers = await listWorkers(instance);
    if (workers.some(({ session }) => session === name)) return;
    if (portBase !== undefined) freePorts(instance, portBase);
    if (homeIsNew) await removeSessionHome(instance, name);
    removeSessionRecord(instance, name);
  } catch (error) {
    // The user has to see why the session was refused.
    log(`warning: Cannot forget "${name}": ${messageOf(error)}`);
  }
}
