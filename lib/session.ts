// A session: one conversation of a project, in the tmux server of whatever worker
// it has at present. Its Claude home outlives its workers.

import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { retireWorker, stopWorker } from "./ending.ts";
import type { Docker } from "./docker.ts";
import { Failure } from "./errors.ts";
import { execIn } from "./exec.ts";
import type { Instance } from "./instance.ts";
import type { Log } from "./log.ts";
import { didYouMean } from "./nearest.ts";
import { writeWhole } from "./owned.ts";
import { claim, claimRequest } from "./pool/client.ts";
import { type Project, resolveProject, sessionName } from "./project.ts";
import {
  readSession,
  readSessions,
  removeSessionRecord,
  type SessionRecord,
  writeSession,
} from "./session-record.ts";
import { type SpawnRequest, spawnWorker } from "./spawn.ts";
import { ensureHome } from "./volumes.ts";
import { waitFor } from "./wait.ts";
import { checkWorkerName, inside } from "./worker.ts";
import { sessionHome } from "./worker-home.ts";
import { listWorkers, type WorkerState } from "./workers.ts";

export interface OpenRequest {
  directory: string;
  cwd: string;
  /** Of several sessions of one project; else it follows from the path. */
  name?: string | undefined;
  allowAnyPath?: boolean;
  /** A conversation of its own, though there is one to go on with. */
  fresh?: boolean;
  /** Given to the Claude CLI, where it has to be started. */
  claudeArguments: string[];
  /** The caller's: what of it the CLI is told. */
  env: NodeJS.ProcessEnv;
}

export interface OpenedSession {
  session: string;
  project: string;
  worker: string;
  id: string;
  /** What was found: a CLI that runs, a conversation to go on with, neither. */
  conversation: "running" | "resumed" | "new";
  start: "running" | "warm" | "cold";
}

const tmux = ["tmux", "-L", "claude", "-f", "/etc/hal9000/session-tmux.conf"];

/** What a terminal runs in a worker to show its session. */
export const attachCommand = [...tmux, "attach-session", "-t", "=claude"];

/**
 * A command for a terminal, under a name by which it can be ended: docker leaves
 * it running where the terminal is closed.
 */
export function asClient(client: string, command: string[]): string[] {
  return ["sh", "-c", `echo $$ >"/tmp/$0"; exec "$@"`, client, ...command];
}

export async function endClient(
  docker: Docker,
  id: string,
  client: string,
): Promise<void> {
  const script = 'kill -HUP "$(cat "/tmp/$0")"; rm -f "/tmp/$0"';
  await execIn(docker, id, ["sh", "-c", script, client]).catch(() => {
    // The worker has ended, and the client with it.
  });
}

/** Finds the project's session, or starts what of it is missing. */
export async function openSession(
  instance: Instance,
  request: OpenRequest,
  log: Log,
): Promise<OpenedSession> {
  const { docker } = instance;
  const project = await resolveProject(instance, {
    path: request.directory,
    cwd: request.cwd,
    as: "project",
    allowAny: request.allowAnyPath ?? false,
  });
  const session = request.name === undefined
    ? sessionName(project.path)
    : checkWorkerName(request.name, instance.names);
  ensureHome(instance);
  remember(instance, session, project, log);
  const { worker, start } = await workerOf(
    instance,
    session,
    project,
    request,
    log,
  );
  const opened = {
    session,
    project: project.path,
    worker: worker.name,
    id: worker.id,
    start,
  };
  if (await hasTerminal(instance, worker.id)) {
    return { ...opened, conversation: "running" };
  }
  const resume = !request.fresh && hasConversation(instance, session);
  const command = [
    ...tmux,
    "new-session",
    "-d",
    "-s",
    "claude",
    "claude",
    ...(resume ? ["--continue"] : []),
    ...keySettings(instance, session, project, request.env),
    ...request.claudeArguments,
  ];
  const { exitCode, output } = await execIn(
    docker,
    worker.id,
    command,
    passedOn(request.env),
  );
  if (exitCode !== 0) {
    if (await hasTerminal(instance, worker.id)) {
      return { ...opened, conversation: "running" }; // another was faster
    }
    throw new Failure("failed", `Cannot start Claude: ${output.trim()}`, {
      hint: `Look around in the worker: docker exec -it ${worker.name} bash`,
    });
  }
  return { ...opened, conversation: resume ? "resumed" : "new" };
}

/** Refuses a name that another project's session has. */
function remember(
  instance: Instance,
  session: string,
  { path }: Project,
  log: Log,
): void {
  const before = readSession(instance, session, log);
  if (before && before.project !== path) {
    throw new Failure("busy", `Session "${session}" is of ${before.project}`, {
      hint: "Choose another --name.",
    });
  }
  const usedAt = new Date().toISOString();
  writeSession(instance, {
    version: 1,
    name: session,
    project: path,
    createdAt: before?.createdAt ?? usedAt,
    usedAt,
  });
}

interface SessionWorker {
  worker: Pick<WorkerState, "name" | "id">;
  start: OpenedSession["start"];
}

async function workerOf(
  instance: Instance,
  session: string,
  project: Project,
  request: OpenRequest,
  log: Log,
): Promise<SessionWorker> {
  const find = async () =>
    (await listWorkers(instance)).find((worker) => worker.session === session);
  // Of another who opens the same session at this moment.
  const started = () =>
    waitFor(async () => {
      const worker = await find();
      return worker?.state === "running" ? worker : undefined;
    }, { for: `the worker of "${session}"`, timeoutMs: raceMs });

  let found = await find();
  if (found?.state === "created") {
    found = await started().catch(() => found); // else it never will be
  }
  if (found?.state === "running") return { worker: found, start: "running" };
  if (found?.state === "paused") {
    throw new Failure("busy", `The worker of "${session}" is paused`, {
      hint: `Let it go on: docker unpause ${found.name}`,
    });
  }
  if (found) await retireWorker(instance, found, log);
  try {
    return await claimOrSpawn(instance, {
      directory: project.path,
      cwd: "/",
      name: session,
      session,
      allowAnyPath: request.allowAnyPath ?? false,
    }, log);
  } catch (error) {
    if (!(error instanceof Failure && error.kind === "busy")) throw error;
    const worker = await started().catch(() => {
      throw error; // somebody else's worker has the name
    });
    return { worker, start: "running" };
  }
}

/** How long another may take to start what both want. */
const raceMs = 3000;

/** A warm worker where the pool has one that fits, else a cold one. */
export async function claimOrSpawn(
  instance: Instance,
  request: SpawnRequest,
  log: Log,
): Promise<SessionWorker> {
  const reply = await claim(
    instance.home,
    claimRequest(instance.settings, request),
  );
  if (reply.start === "warm") return { worker: reply.worker, start: "warm" };
  const worker = await spawnWorker(instance, request, log);
  return { worker, start: "cold" };
}

async function hasTerminal(
  { docker }: Instance,
  id: string,
): Promise<boolean> {
  const { exitCode } = await execIn(docker, id, [
    ...tmux,
    "has-session",
    "-t",
    "=claude",
  ]);
  return exitCode === 0;
}

/** Where the CLI keeps the conversations of /workspace. */
const conversations = "projects/-workspace";

/** Whether there is one to go on with: the CLI ends where it is told to and there is none. */
function hasConversation({ home }: Instance, session: string): boolean {
  const directory = join(home.home, sessionHome(session), conversations);
  return existsSync(directory) &&
    readdirSync(directory).some((file) => file.endsWith(".jsonl"));
}

/** Of the caller's variables, those that the CLI is to know. */
export function passedOn(env: NodeJS.ProcessEnv): Record<string, string> {
  const names = ["ANTHROPIC_BASE_URL", "ANTHROPIC_MODEL", "COLORTERM"];
  return Object.fromEntries(
    names.flatMap((name) => env[name] ? [[name, env[name]]] : []),
  );
}

/**
 * The caller's API key becomes a file of the session's home, which the CLI is
 * told to read: as a variable it would stand in `docker inspect`, and the CLI
 * would ask whether to use it.
 */
function keySettings(
  { home }: Instance,
  session: string,
  project: Project,
  env: NodeJS.ProcessEnv,
): string[] {
  const file = ".anthropic_key";
  const path = join(home.home, sessionHome(session), file);
  const key = env["ANTHROPIC_API_KEY"];
  if (key) writeWhole(path, key, project, 0o400);
  else if (!existsSync(path)) return [];
  const apiKeyHelper = `cat ${inside.claudeHome}/${file}`;
  return ["--settings", JSON.stringify({ apiKeyHelper })];
}

export type Activity =
  | "working"
  | "waiting"
  | "idle"
  | "starting"
  | "stopped";

export interface SessionState extends SessionRecord {
  state: Activity;
  /** What it waits for, in the CLI's words. */
  waitingFor: string | null;
  /** Terminals that show it. */
  attached: number;
  worker: string | null;
  born: string | null;
}

/** What the CLI writes of itself; a worker can write it too. */
const activitySchema = v.object({
  status: v.picklist(["busy", "waiting", "idle"]),
  waitingFor: v.optional(v.pipe(v.string(), v.maxLength(1000))),
});

const activities = {
  busy: "working",
  waiting: "waiting",
  idle: "idle",
} as const;

export async function listSessions(
  instance: Instance,
  log: Log,
): Promise<SessionState[]> {
  const workers = await listWorkers(instance);
  return await Promise.all(
    readSessions(instance, log).map((record) =>
      stateOf(instance, record, workers)
    ),
  );
}

async function stateOf(
  instance: Instance,
  record: SessionRecord,
  workers: WorkerState[],
): Promise<SessionState> {
  const worker = workers.find(({ session, state }) =>
    session === record.name && state === "running"
  );
  const state: SessionState = {
    ...record,
    state: "stopped",
    waitingFor: null,
    attached: 0,
    worker: worker?.name ?? null,
    born: worker?.born ?? null,
  };
  if (!worker) return state;
  // Of processes that live; the file of one that was killed stays.
  const { exitCode, output } = await execIn(instance.docker, worker.id, [
    "bash",
    "-c",
    `${tmux.join(" ")} list-clients -t =claude -F x || exit
    for file in "$CLAUDE_CONFIG_DIR"/sessions/*.json; do
      pid=\${file##*/}
      [ -d "/proc/\${pid%.json}" ] && echo "=$(head -c 4096 "$file" | tr -d '\\n')"
    done
    true`,
  ]);
  if (exitCode !== 0) return state;
  const lines = output.split("\n");
  state.attached = lines.filter((line) => line === "x").length;
  state.state = "starting";
  for (const line of lines.filter((line) => line.startsWith("="))) {
    const activity = parseActivity(line.slice(1));
    if (!activity) continue;
    state.state = activities[activity.status];
    state.waitingFor = activity.waitingFor ?? null;
  }
  return state;
}

/** Undefined for a file that is being written, or is nothing of the CLI's. */
export function parseActivity(
  text: string,
): v.InferOutput<typeof activitySchema> | undefined {
  try {
    return v.parse(activitySchema, JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** The session of this name; throws a `notFound` Failure with the nearest. */
export function findSession(
  instance: Instance,
  name: string,
  log: Log,
): SessionRecord {
  const found = readSession(instance, name, log);
  if (found) return found;
  const names = readSessions(instance, log).map((session) => session.name);
  throw new Failure("notFound", `There is no session "${name}"`, {
    hint: `${didYouMean(name, names)}See claudy sessions.`,
  });
}

/** How long the CLI may take to write down what it has. */
const farewellMs = 3000;

/** Ends the CLI, then the worker; the conversation stays. */
export async function stopSession(
  instance: Instance,
  name: string,
  log: Log,
): Promise<boolean> {
  const worker = (await listWorkers(instance))
    .find(({ session }) => session === name);
  if (!worker) return false;
  if (worker.state === "running") {
    await execIn(instance.docker, worker.id, [
      ...tmux,
      "kill-session",
      "-t",
      "=claude",
    ]);
    await waitFor(
      async () =>
        (await execIn(instance.docker, worker.id, ["pgrep", "-x", "claude"]))
          .exitCode !== 0,
      { for: "Claude to end", timeoutMs: farewellMs, everyMs: 50 },
    ).catch(() => {
      // It is killed with its worker.
    });
  }
  await stopWorker(instance, worker, log);
  return true;
}

/** Stops a session and removes all that is kept of it. */
export async function removeSession(
  instance: Instance,
  name: string,
  log: Log,
): Promise<void> {
  await stopSession(instance, name, log);
  rmSync(join(instance.home.home, sessionHome(name)), {
    recursive: true,
    force: true,
  });
  removeSessionRecord(instance, name);
}
