// Gives a session another name or project. Its worker must be stopped: a running one
// keeps its name and its mounts.

import { existsSync, renameSync } from "node:fs";
import { join } from "node:path";
import { sessionHome } from "../home/worker-home.ts";
import { moveScope } from "../egress/store.ts";
import { moveBudgets } from "../usage/budgets.ts";
import type { Instance } from "../instance/instance.ts";
import { copyGrant } from "../relay/grant.ts";
import { freePorts, reservePorts } from "../instance/port-range.ts";
import {
  readSession,
  removeSessionRecord,
  type SessionRecord,
  writeSession,
} from "../instance/session-record.ts";
import { sessionName } from "../project/project.ts";
import { isDefault } from "./find.ts";
import { Failure } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { checkWorkerName } from "../worker/name.ts";
import { stopSession } from "./session.ts";
import { listWorkers } from "../worker/workers.ts";

/** Renames a session; its conversations, settings and project stay. */
export async function renameSession(
  instance: Instance,
  session: SessionRecord,
  name: string,
  log: Log,
): Promise<SessionRecord> {
  const to = { ...session, name: checkWorkerName(name, instance.names) };
  return await change(instance, session, to, log);
}

/**
 * Makes a session belong to a project that has moved to `project`. A name that was
 * derived from the former path is derived again.
 */
export async function moveSession(
  instance: Instance,
  session: SessionRecord,
  project: string,
  log: Log,
): Promise<SessionRecord> {
  const name = isDefault(session) ? sessionName(project) : session.name;
  // Its repository was allowed for the former place.
  const to = { ...session, name, project, repository: undefined };
  return await change(instance, session, to, log);
}

/**
 * Writes the new record, then moves the files, then removes the old record: an
 * interrupted change is completed by running it again.
 */
async function change(
  instance: Instance,
  from: SessionRecord,
  to: SessionRecord,
  log: Log,
): Promise<SessionRecord> {
  const { home } = instance;
  const workers = await listWorkers(instance);
  const hasWorker = (name: string) =>
    workers.some(({ session }) => session === name);
  if (hasWorker(from.name)) {
    throw new Failure("busy", `Session "${from.name}" is running`, {
      hint: `Stop it first: claudy stop ${from.name}`,
    });
  }
  if (from.name === to.name) {
    writeSession(instance, to);
    return to;
  }
  const [oldHome, newHome] = [from, to]
    .map(({ name }) => join(home.home, sessionHome(name))) as [string, string];
  const present = readSession(instance, to.name);
  const interrupted = present?.createdAt === from.createdAt &&
    present.usedAt === from.usedAt && present.project === to.project;
  if (
    !interrupted && (present || existsSync(newHome)) ||
    existsSync(oldHome) && existsSync(newHome) ||
    hasWorker(to.name)
  ) {
    throw new Failure("busy", `There is already a session "${to.name}"`, {
      hint: `Remove it, or rename it: claudy rename ${to.name} NAME`,
    });
  }
  // Its ports are derived from its name.
  const record: SessionRecord = { ...to, portBase: undefined };
  writeSession(instance, record);
  if (existsSync(oldHome)) {
    copyGrant(instance, sessionHome(from.name), sessionHome(to.name));
  }
  moveFile(oldHome, newHome);
  moveFile(home.workspace(from.name), home.workspace(to.name));
  moveFile(home.inherited(from.name), home.inherited(to.name));
  moveScope(instance, from.name, to.name);
  moveBudgets(instance, from.name, to.name);
  if (from.portBase !== undefined) {
    record.portBase = reservePorts(instance, to.name);
    writeSession(instance, record);
    freePorts(instance, from.name, from.portBase);
  }
  removeSessionRecord(instance, from.name);
  // If another command has opened it since the check: its worker uses the moved files.
  await stopSession(instance, from.name, log);
  return record;
}

function moveFile(from: string, to: string): void {
  if (existsSync(from)) renameSync(from, to);
}
