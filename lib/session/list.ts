// Sessions as they are now: what is kept of them, their workers, and what the
// CLI says.

import { join } from "node:path";
import {
  type CliState,
  cliState,
  notedFile,
  ownFiles,
  readCliState,
} from "./activity.ts";
import { lastSaidAt, lookMs, TooMany } from "./conversations.ts";
import { inspectContainer } from "../docker/docker.ts";
import { messageOf } from "../std/errors.ts";
import { execIn } from "../docker/exec.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { withoutNetwork } from "../worker/workers.ts";
import {
  readEndedRecords,
  readRecords,
  type WorkerRecord,
} from "../instance/record.ts";
import {
  readSessions,
  type SessionRecord,
} from "../instance/session-record.ts";
import { tmux } from "./tmux.ts";
import { sessionHome } from "../home/worker-home.ts";
import { listWorkers, type WorkerState } from "../worker/workers.ts";

export interface SessionState extends SessionRecord {
  state: CliState["activity"];
  /** What it waits for, in the CLI's words. */
  waitingFor: string | null;
  /** Terminals that show it. */
  attached: number;
  worker: string | null;
  born: string | null;
  /** When its present or latest worker last ran out of memory; null if never. */
  oomKilledAt: string | null;
  /** The limit of that worker. */
  memoryBytes: number | null;
  /** When something was last said in it, or it was last opened. */
  activeAt: string;
}

export async function listSessions(
  instance: Instance,
  log: Log,
): Promise<SessionState[]> {
  const workers = await listWorkers(instance);
  const offline = await withoutNetwork(instance, workers);
  const deadline = Date.now() + lookMs;
  // Of several workers of a session, the latest first.
  const known = [
    ...readRecords(instance, log),
    ...readEndedRecords(instance),
  ];
  return await Promise.all(
    readSessions(instance, log).map((record) =>
      stateOf(instance, record, {
        workers,
        offline,
        activeAt: activeAt(instance, record, deadline, log),
        latest: known.find(({ session }) => session === record.name),
      })
    ),
  );
}

interface Known {
  workers: WorkerState[];
  /** Names of workers without a network. */
  offline: Set<string>;
  /** Of the session's present worker, else of its last. */
  latest: WorkerRecord | undefined;
  activeAt: string;
}

async function stateOf(
  instance: Instance,
  record: SessionRecord,
  { workers, offline, latest, activeAt }: Known,
): Promise<SessionState> {
  const worker = workers.find(({ session, state }) =>
    session === record.name && (state === "running" || state === "paused")
  );
  const said = worker && await stateIn(instance, worker);
  return {
    ...record,
    state: worker && offline.has(worker.name)
      ? "offline"
      : said?.activity ?? "stopped",
    waitingFor: said?.waitingFor ?? null,
    attached: said?.attached ?? 0,
    worker: worker?.name ?? null,
    born: worker?.born ?? null,
    oomKilledAt: latest?.oomKilledAt ?? null,
    memoryBytes: latest?.memoryBytes ?? null,
    activeAt,
  };
}

type WorkerSaid = CliState & { attached: number };

/** Undefined where no CLI runs; one worker that is ill holds up no others. */
async function stateIn(
  instance: Instance,
  { id, state, session }: WorkerState,
): Promise<WorkerSaid | undefined> {
  const without = { waitingFor: null, attached: 0 };
  if (state === "paused") return { activity: "paused", ...without };
  try {
    const said = session === null ? undefined : stateOnHost(instance, session);
    return said
      ? { ...said, attached: await countTerminals(instance, id) }
      : await askWorker(instance, id);
  } catch {
    return { activity: "unknown", ...without };
  }
}

/** As its files have it: no process is started in the worker, none can delay this. */
function stateOnHost(
  { home }: Instance,
  session: string,
): CliState | undefined {
  try {
    return readCliState(join(home.home, sessionHome(session)));
  } catch {
    return undefined; // another user's project, and so another's home
  }
}

/** More terminals than show one session. */
const maxTerminals = 50;

/** Terminals that show a session, as the engine knows them. */
export async function countTerminals(
  { docker }: Pick<Instance, "docker">,
  id: string,
): Promise<number> {
  const { ExecIDs } = await inspectContainer(docker, id) ?? {};
  const shown = await Promise.all(
    (ExecIDs ?? []).slice(0, maxTerminals).map(async (exec) => {
      const found = await docker.getExec(exec).inspect().catch(() => undefined);
      return found?.Running && found.ProcessConfig.tty &&
        found.ProcessConfig.arguments.join(" ").includes(tmux.join(" "));
    }),
  );
  return shown.filter(Boolean).length;
}

/**
 * What a worker says where its files say nothing: Claude starts, or does not run.
 * Of processes that live: the file of one that was killed stays.
 */
const script = `${tmux.join(" ")} list-clients -F client || exit
cd "$CLAUDE_CONFIG_DIR" || exit
[ -f ${notedFile} ] && echo "noted $(head -c 4096 ${notedFile} | tr -d '\\n')"
for file in ${ownFiles}/*.json; do
  pid=\${file##*/}
  [ -f "$file" ] && [ -d "/proc/\${pid%.json}" ] && echo "own $(head -c 4096 "$file" | tr -d '\\n')"
done
true`;

/** Enough for a worker that is well. */
const answerMs = 5000;

async function askWorker(
  { docker }: Instance,
  id: string,
): Promise<WorkerSaid | undefined> {
  const { exitCode, output } = await execIn(
    docker,
    id,
    ["bash", "-c", script],
    { timeoutMs: answerMs },
  );
  if (exitCode !== 0) return undefined;
  const lines = output.split("\n");
  const behind = (word: string) =>
    lines.filter((line) => line.startsWith(`${word} `))
      .map((line) => line.slice(word.length + 1));
  const said = cliState(behind("own"), behind("noted")[0] ?? "");
  return {
    ...(said ?? { activity: "starting", waitingFor: null }),
    attached: lines.filter((line) => line === "client").length,
  };
}

/** Where it cannot be told when something was said, it is when it was last opened. */
function activeAt(
  instance: Instance,
  record: SessionRecord,
  deadline: number,
  log: Log,
): string {
  try {
    const said = lastSaidAt(instance, record.name, deadline);
    return new Date(Math.max(Date.parse(record.usedAt), said)).toISOString();
  } catch (error) {
    const reason = error instanceof TooMany
      ? error.message
      : `Cannot read the conversations of "${record.name}": ${
        messageOf(error)
      }`;
    log(`warning: ${reason}; ACTIVE is when it was last opened`);
    return record.usedAt; // one session that is ill holds up no others
  }
}
