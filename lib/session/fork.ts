// Forks a session: others begin where it is, with its files, its conversation and its settings,
// while it goes on.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { readScope, writeScope } from "../egress/store.ts";
import type { InheritRequest } from "../home/host-config.ts";
import { inheritOnce } from "../home/inherit.ts";
import { sessionHome } from "../home/worker-home.ts";
import type { Instance } from "../instance/instance.ts";
import {
  readSession,
  type SessionRecord,
  writeSession,
} from "../instance/session-record.ts";
import { resolveProject } from "../project/project.ts";
import { Failure } from "../std/errors.ts";
import type { HostPath } from "../std/hostpath.ts";
import type { Log } from "../std/log.ts";
import { createDirectory, replaceFile } from "../std/owned.ts";
import { readBudgets, setBudget } from "../usage/budgets.ts";
import { listWorkers } from "../worker/workers.ts";
import { whileFrozen } from "../workspace/frozen.ts";
import type { WhileFrozen } from "../workspace/container.ts";
import { forkCopy, makeCopy } from "../workspace/make.ts";
import { latestConversation, readConversation } from "./conversations.ts";

export interface Forked {
  sessions: string[];
  /** How long the session's worker stood still. */
  frozenMs: number;
  /** Whether the copies share blocks with the session's. */
  shared: boolean;
}

/** More than conversations have; the CLI compacts them. */
const maxConversation = 512 * 1024 ** 2;

export async function forkSession(
  instance: Instance,
  from: SessionRecord,
  { count, inherit }: { count: number; inherit: InheritRequest | undefined },
  log: Log,
): Promise<Forked> {
  const project = await resolveProject(instance, {
    path: from.project,
    cwd: "/",
    as: "project",
    allowAny: true,
  });
  const sessions = newNames(instance, from.name, count);
  const [first = "", ...others] = sessions;
  const add = (session: string, conversation: Conversation | undefined) =>
    addSession(
      instance,
      { from, session, project, inherit, conversation },
      log,
    );
  let conversation: Conversation | undefined;
  let frozenMs = 0;
  const frozen: WhileFrozen = async (act) => {
    frozenMs = await whileStill(instance, from.name, () => {
      conversation = takeConversation(instance, from.name);
      return act();
    });
  };
  const save = () => add(first, conversation);
  let shared = false;
  if (from.copy) {
    const request = { from: from.name, session: first, frozen };
    shared = await forkCopy(instance, request, save, log);
  } else {
    const request = {
      session: first,
      project,
      changes: true,
      ignored: [],
      allowAnyPath: true,
      repository: { allowed: false, remembered: from.repository },
      frozen,
    };
    if (!await makeCopy(instance, request, save, log)) throw isTaken(first);
  }
  // From the first one, which nothing changes yet.
  for (const session of others) {
    const save = () => add(session, conversation);
    const request = { from: first, session };
    shared = await forkCopy(instance, request, save, log);
  }
  return { sessions, frozenMs, shared };
}

function newNames(instance: Instance, from: string, count: number): string[] {
  const stem = from.slice(0, 56);
  const names: string[] = [];
  for (let number = 1; names.length < count; number++) {
    const name = `${stem}-f${number}`;
    const isUsed = readSession(instance, name) ||
      existsSync(instance.home.workspace(name)) ||
      existsSync(join(instance.home.home, sessionHome(name)));
    if (!isUsed) names.push(name);
  }
  return names;
}

function isTaken(session: string): Failure {
  return new Failure("busy", `Another command makes session "${session}"`, {
    hint: "Try again.",
  });
}

/** Runs `act` while the session's worker stands still; returns for how long. */
async function whileStill(
  instance: Instance,
  session: string,
  act: () => Promise<void>,
): Promise<number> {
  const worker = (await listWorkers(instance))
    .find((worker) => worker.session === session);
  // Another fork may have paused it for a moment.
  if (worker?.state === "running" || worker?.state === "paused") {
    return await whileFrozen(instance, worker.id, act);
  }
  await act();
  return 0;
}

interface Conversation {
  id: string;
  text: Uint8Array;
}

/** The conversation that was written to last, up to its last whole line. */
function takeConversation(
  instance: Instance,
  session: string,
): Conversation | undefined {
  const name = latestConversation(instance, session);
  const id = /^([\w-]{1,64})\.jsonl$/.exec(name ?? "")?.[1];
  if (name === undefined || id === undefined) return undefined;
  const limits = { offset: 0, maxBytes: maxConversation };
  const end = readConversation(instance, session, name, limits);
  if (!end || end.from > 0) return undefined;
  return { id, text: end.bytes.subarray(0, end.bytes.lastIndexOf(10) + 1) };
}

/** Everything of the new session but its files. */
function addSession(
  instance: Instance,
  { from, session, project, inherit, conversation }: {
    from: SessionRecord;
    session: string;
    project: HostPath;
    inherit: InheritRequest | undefined;
    conversation: Conversation | undefined;
  },
  log: Log,
): void {
  inheritOnce(instance, { session, project, request: inherit }, log);
  if (conversation) writeConversation(instance, session, project, conversation);
  const now = new Date().toISOString();
  writeSession(instance, {
    ...from,
    name: session,
    copy: true,
    createdAt: now,
    usedAt: now,
    portBase: undefined,
    forkOf: conversation?.id,
    forkedFrom: from.name,
  });
  const scope = readScope(instance, { session: from.name });
  if (scope.preset || scope.rules.length > 0) {
    writeScope(instance, { session }, scope);
  }
  for (const budget of readBudgets(instance.home)) {
    if (budget.session === from.name) {
      setBudget(instance, { ...budget, session });
    }
  }
}

/** The home is new: no worker has it. */
function writeConversation(
  { home }: Instance,
  session: string,
  project: HostPath,
  { id, text }: Conversation,
): void {
  let directory = join(home.home, sessionHome(session));
  for (const part of [".", "projects", "-workspace"]) {
    directory = join(directory, part);
    if (!existsSync(directory)) createDirectory(directory, project);
  }
  replaceFile(join(directory, `${id}.jsonl`), text, project);
}
