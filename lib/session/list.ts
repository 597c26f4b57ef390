// Lists sessions with their saved record, their worker, and the activity of Claude.

import { constants } from "node:os";
import { join } from "node:path";
import {
  type CliState,
  cliState,
  notedFile,
  ownFiles,
  readCliState,
  readEnding,
  withLimit,
} from "./activity.ts";
import { lastSaidAt, scanTimeoutMs, TooMany } from "./conversations.ts";
import { terminalClients } from "../docker/terminal.ts";
import { messageOf } from "../std/errors.ts";
import { execIn } from "../docker/exec.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { type LimitEvents, limitEvents } from "../worker/limit-events.ts";
import { withoutNetwork } from "../worker/workers.ts";
import {
  type EndedRecord,
  readEndedRecords,
  readRecords,
  type WorkerRecord,
} from "../instance/record.ts";
import type { PermissionMode } from "../instance/permission-mode.ts";
import {
  readSessions,
  type SessionRecord,
} from "../instance/session-record.ts";
import { unprintable } from "../std/text.ts";
import { tmux } from "./tmux.ts";
import { hasCredentials } from "../home/credentials.ts";
import { sessionHome } from "../home/worker-home.ts";
import { listWorkers, type WorkerState } from "../worker/workers.ts";
import {
  readStatus,
  type Status,
  type Today,
  usedToday,
} from "../usage/status.ts";

export interface SessionState
  extends
    Omit<SessionRecord, "permissionMode" | "permissionModeFrom" | "network"> {
  /** The permission mode that Claude was last started in; null for its own default. */
  permissionMode: PermissionMode | null;
  permissionModeFrom: "option" | "setting" | null;
  state: CliState["activity"];
  /**
   * What the session is waiting for, as reported by the CLI; while it is starting, the
   * last line of its terminal.
   */
  waitingFor: string | null;
  /**
   * Exit code of a Claude that ended while its worker runs, or of a worker that ended
   * without being stopped; null otherwise.
   */
  exitCode: number | null;
  /** Whether it has credentials. */
  loggedIn: boolean;
  /** Number of terminals attached to the session. */
  attached: number;
  worker: string | null;
  /** Of its worker; without one, that of the next. */
  network: WorkerState["network"];
  born: string | null;
  /** When its current or latest worker last ran out of memory; null if never. */
  oomKilledAt: string | null;
  /** The memory limit of that worker. */
  memoryBytes: number | null;
  /** How often the running worker has reached its limits; null if unknown. */
  limitEvents: LimitEvents | null;
  /** Time of the last message, or when the session was last opened. */
  activeAt: string;
  /** What it used of the API today; null if nothing was counted. */
  today: Today | null;
}

export async function listSessions(
  instance: Instance,
  env: NodeJS.ProcessEnv,
  log: Log,
): Promise<SessionState[]> {
  const workers = await listWorkers(instance);
  const offline = await withoutNetwork(instance, workers);
  const deadline = Date.now() + scanTimeoutMs;
  const status = readStatus(instance);
  // Live workers first, then the ended ones, newest first.
  const records = [
    ...readRecords(instance, log),
    ...readEndedRecords(instance),
  ];
  return await Promise.all(
    readSessions(instance, log).map((record) =>
      stateOf(instance, record, {
        workers,
        offline,
        env,
        status,
        activeAt: activeAt(instance, record, deadline, log),
        latest: records.find(({ session }) => session === record.name),
      })
    ),
  );
}

interface Observed {
  workers: WorkerState[];
  /** Names of workers without a network. */
  offline: Set<string>;
  /** The record of the session's current worker, else of its last one. */
  latest: WorkerRecord | EndedRecord | undefined;
  activeAt: string;
  status: Status | undefined;
  /** The caller's environment. */
  env: NodeJS.ProcessEnv;
}

async function stateOf(
  instance: Instance,
  record: SessionRecord,
  { workers, offline, latest, activeAt, env, status }: Observed,
): Promise<SessionState> {
  const worker = workers.find(({ session, state }) =>
    session === record.name && (state === "running" || state === "paused")
  );
  const seen = worker && await stateIn(instance, worker);
  const cli = seen &&
    { ...seen, ...withLimit(seen, status, record.name, Date.now()) };
  const claudeHome = join(instance.home.home, sessionHome(record.name));
  return {
    ...record,
    permissionMode: record.permissionMode ?? null,
    permissionModeFrom: record.permissionModeFrom ?? null,
    state: worker && offline.has(worker.name)
      ? "offline"
      : cli?.activity ?? (worker ? "exited" : restState(latest)),
    waitingFor: cli?.waitingFor ?? null,
    exitCode: !worker
      ? failureOf(latest)
      : cli
      ? null
      : readEnding(claudeHome)?.exitCode ?? null,
    loggedIn: tried(() => hasCredentials(instance, claudeHome, env)) ?? true,
    attached: cli?.attached ?? 0,
    worker: worker?.name ?? null,
    network: worker?.network ?? record.network ??
      instance.settings.WORKER_NETWORK,
    born: worker?.born ?? null,
    oomKilledAt: latest?.oomKilledAt ?? null,
    memoryBytes: latest?.memoryBytes ?? null,
    limitEvents: worker ? await limitEvents(instance, worker.id) : null,
    activeAt,
    today: usedToday(status, record.name, Date.now()),
  };
}

/** The state of a session without a worker. */
function restState(
  latest: WorkerRecord | EndedRecord | undefined,
): "stopped" | "lost" {
  if (!latest) return "stopped";
  return "end" in latest && latest.end.exitCode !== null ? "stopped" : "lost";
}

/** The exit code of a worker that has ended by itself; null for one that was stopped. */
function failureOf(
  latest: WorkerRecord | EndedRecord | undefined,
): number | null {
  const code = latest && "end" in latest ? latest.end.exitCode : null;
  const stopped = 128 + constants.signals.SIGTERM;
  return code === stopped ? null : code;
}

/** Undefined if the home belongs to another user and is not readable. */
function tried<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

type WorkerCliState = CliState & { attached: number };

/** Undefined if no CLI is running. A broken worker gives "unknown", not an error. */
async function stateIn(
  instance: Instance,
  { id, state, session }: WorkerState,
): Promise<WorkerCliState | undefined> {
  const noCli = { waitingFor: null, attached: 0 };
  if (state === "paused") return { activity: "paused", ...noCli };
  try {
    const cli = session === null ? undefined : stateOnHost(instance, session);
    return cli
      ? { ...cli, attached: await countTerminals(instance, id) }
      : await queryWorker(instance, id);
  } catch {
    return { activity: "unknown", ...noCli };
  }
}

/** Reads the files on the host: starts no process in the worker, so it cannot block. */
function stateOnHost(
  { home }: Pick<Instance, "home">,
  session: string,
): CliState | undefined {
  return readCliState(join(home.home, sessionHome(session)));
}

/** Number of terminals attached to a session, without those that were killed. */
export async function countTerminals(
  { docker }: Pick<Instance, "docker">,
  id: string,
): Promise<number> {
  return (await terminalClients(docker, id)).filter(({ command, isLeft }) =>
    !isLeft && command.join(" ").includes(tmux.join(" "))
  ).length;
}

/**
 * Run in the worker if the files on the host give no state: Claude may be starting, or
 * not running. Skips the files of dead processes: a killed one leaves its file behind.
 */
const queryScript = `${tmux.join(" ")} list-clients -F client || exit
cd "$CLAUDE_CONFIG_DIR" || exit
[ -f ${notedFile} ] && echo "noted $(head -c 4096 ${notedFile} | tr -d '\\n')"
for file in ${ownFiles}/*.json; do
  pid=\${file##*/}
  [ -f "$file" ] && [ -d "/proc/\${pid%.json}" ] && echo "own $(head -c 4096 "$file" | tr -d '\\n')"
done
${
  tmux.join(" ")
} capture-pane -p -t =claude: | grep '[[:alnum:]]' | tail -n 1 | sed 's/^/screen /'
true`;

/** Long enough for a healthy worker. */
const queryTimeoutMs = 5000;

async function queryWorker(
  { docker }: Pick<Instance, "docker">,
  id: string,
): Promise<WorkerCliState | undefined> {
  const { exitCode, output } = await execIn(
    docker,
    id,
    ["bash", "-c", queryScript],
    { timeoutMs: queryTimeoutMs },
  );
  if (exitCode !== 0) return undefined;
  const lines = output.split("\n");
  const linesAfter = (word: string) =>
    lines.filter((line) => line.startsWith(`${word} `))
      .map((line) => line.slice(word.length + 1));
  const cli = cliState(linesAfter("own"), linesAfter("noted")[0] ?? "");
  const screen = (linesAfter("screen")[0] ?? "")
    .replace(unprintable, " ").trim().slice(0, 100);
  return {
    ...(cli ?? { activity: "starting", waitingFor: screen || null }),
    attached: lines.filter((line) => line === "client").length,
  };
}

/** If the time of the last message is unknown, when the session was last opened. */
function activeAt(
  instance: Instance,
  record: SessionRecord,
  deadline: number,
  log: Log,
): string {
  try {
    const lastAt = lastSaidAt(instance, record.name, deadline);
    return new Date(Math.max(Date.parse(record.usedAt), lastAt)).toISOString();
  } catch (error) {
    const reason = error instanceof TooMany
      ? error.message
      : `Cannot read the conversations of "${record.name}": ${
        messageOf(error)
      }`;
    log(`warning: ${reason}; ACTIVE shows when it was last opened`);
    return record.usedAt; // a broken session must not block the list
  }
}
