// Forks a session: others begin where it is, with its files, its conversation and its settings,
// while it goes on.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { engineInfo } from "../docker/engine-info.ts";
import type { Scope } from "../egress/policy.ts";
import { readScope, removeScope, writeScope } from "../egress/store.ts";
import type { InheritRequest } from "../home/host-config.ts";
import { inheritOnce } from "../home/inherit.ts";
import { sessionHome } from "../home/worker-home.ts";
import type { Instance } from "../instance/instance.ts";
import {
  readSession,
  removeSessionRecord,
  type SessionRecord,
  writeSession,
} from "../instance/session-record.ts";
import { resolveProject } from "../project/project.ts";
import { Failure, messageOf } from "../std/errors.ts";
import type { HostPath } from "../std/hostpath.ts";
import type { Log } from "../std/log.ts";
import { createDirectory, replaceFile } from "../std/owned.ts";
import {
  type Budget,
  readBudgets,
  removeBudgets,
  setBudget,
} from "../usage/budgets.ts";
import { listWorkers } from "../worker/workers.ts";
import { sweepCopies } from "../workspace/abandoned.ts";
import type { WhileFrozen } from "../workspace/container.ts";
import { whileFrozen } from "../workspace/frozen.ts";
import { forkCopy, makeCopy } from "../workspace/make.ts";
import { reserve, type Scratch } from "../workspace/scratch.ts";
import { removeCopy } from "../workspace/workspace.ts";
import { latestConversation, readConversation } from "./conversations.ts";
import { removeSessionHome } from "./session.ts";

export interface Forked {
  sessions: string[];
  /** How long the session's worker stood still. */
  frozenMs: number;
  /** Whether the copies share blocks with the session's. */
  shared: boolean;
}

/** More than conversations have; the CLI compacts them. */
const maxConversation = 512 * 1024 ** 2;

/** Makes all of them or, if something fails, none. */
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
  await requirePause(instance, from.name);
  const rules = rulesOf(instance, from.name);
  await sweepCopies(instance);
  const reserved = reserveNames(instance, from.name, count);
  const sessions = [...reserved.keys()];
  const added: string[] = [];
  try {
    const made = await makeCopies(instance, from, project, reserved, log);
    for (const session of sessions) {
      added.push(session);
      const { conversation } = made;
      const addition = { from, session, project, inherit, conversation, rules };
      addSession(instance, addition, log);
    }
    return { sessions, frozenMs: made.frozenMs, shared: made.shared };
  } catch (error) {
    // Only a warning, so that the user sees the error that made the fork fail.
    await undo(instance, sessions, added).catch((error) => {
      log(`warning: Cannot remove what was forked: ${messageOf(error)}`);
    });
    throw error;
  } finally {
    for (const scratch of reserved.values()) await scratch.remove();
  }
}

/** Names of sessions that are new, with the directories of their copies. */
function reserveNames(
  instance: Instance,
  from: string,
  count: number,
): Map<string, Scratch> {
  const stem = from.slice(0, 56);
  const reserved = new Map<string, Scratch>();
  for (let number = 1; reserved.size < count; number++) {
    const name = `${stem}-f${number}`;
    const isUsed = readSession(instance, name) ||
      existsSync(join(instance.home.home, sessionHome(name)));
    const scratch = isUsed ? undefined : reserve(instance, name);
    if (scratch) reserved.set(name, scratch);
  }
  return reserved;
}

/** The first one is made from the session, the others from that one, which nothing changes. */
async function makeCopies(
  instance: Instance,
  from: SessionRecord,
  project: HostPath,
  reserved: Map<string, Scratch>,
  log: Log,
) {
  let conversation: Conversation | undefined;
  let frozenMs = 0;
  const frozen: WhileFrozen = async (act) => {
    frozenMs = await whileStill(instance, from.name, () => {
      conversation = takeConversation(instance, from.name);
      return act();
    });
  };
  let shared = false;
  let first: string | undefined;
  for (const [session, scratch] of reserved) {
    if (first !== undefined) {
      const request = { from: first, session };
      shared = await forkCopy(instance, request, scratch, log);
      continue;
    }
    first = session;
    if (from.copy) {
      const request = { from: from.name, session, frozen };
      shared = await forkCopy(instance, request, scratch, log);
    } else {
      const request = {
        session,
        project,
        changes: true,
        ignored: [],
        allowAnyPath: true,
        repository: { allowed: false, remembered: from.repository },
        frozen,
      };
      await makeCopy(instance, request, scratch, log);
    }
  }
  return { conversation, frozenMs, shared };
}

/** Throws a Failure if the session's worker runs, and the engine cannot pause it. */
async function requirePause(
  instance: Instance,
  session: string,
): Promise<void> {
  if (!await liveWorker(instance, session)) return;
  const { cgroups } = await engineInfo(instance.docker);
  if (cgroups !== undefined) return;
  throw new Failure(
    "busy",
    `Cannot fork session "${session}" while it runs: ` +
      "this engine cannot pause its worker, for it has no cgroups",
    { hint: `Stop it first: claudy stop ${session}` },
  );
}

/** Another fork may have paused it for a moment. */
const liveWorker = async (instance: Instance, session: string) =>
  (await listWorkers(instance)).find((worker) =>
    worker.session === session && ["running", "paused"].includes(worker.state)
  );

/** Runs `act` while the session's worker stands still; returns for how long. */
async function whileStill(
  instance: Instance,
  session: string,
  act: () => Promise<void>,
): Promise<number> {
  const worker = await liveWorker(instance, session);
  if (worker) return await whileFrozen(instance, worker.id, act);
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

/** What a fork may do as the session may. */
interface Rules {
  scope: Scope;
  budgets: Budget[];
}

/** Throws a Failure if they cannot be read. */
const rulesOf = (instance: Instance, session: string): Rules => ({
  scope: readScope(instance, { session }),
  budgets: readBudgets(instance.home).filter((one) => one.session === session),
});

/** Everything of the new session but its files. */
function addSession(
  instance: Instance,
  { from, session, project, inherit, conversation, rules }: {
    from: SessionRecord;
    session: string;
    project: HostPath;
    inherit: InheritRequest | undefined;
    conversation: Conversation | undefined;
    rules: Rules;
  },
  log: Log,
): void {
  inheritOnce(instance, { session, project, request: inherit }, log);
  if (conversation) writeConversation(instance, session, project, conversation);
  const { scope, budgets } = rules;
  if (scope.preset || scope.rules.length > 0) {
    writeScope(instance, { session }, scope);
  }
  for (const budget of budgets) setBudget(instance, { ...budget, session });
  const now = new Date().toISOString();
  // At last: nothing can open it before.
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
}

async function undo(
  instance: Instance,
  sessions: string[],
  added: string[],
): Promise<void> {
  for (const session of added) {
    removeSessionRecord(instance, session);
    await removeSessionHome(instance, session);
    removeScope(instance, { session });
  }
  // Last: another command can take the name then.
  for (const session of sessions) await removeCopy(instance, session);
  for (const session of added) {
    removeBudgets(instance, { session, project: null });
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
