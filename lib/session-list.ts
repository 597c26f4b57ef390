// Sessions as they are now: what is kept of them, their workers, and what the
// CLI says.

import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { type CliState, cliState, notedFile, ownFiles } from "./activity.ts";
import { execIn } from "./exec.ts";
import type { Instance } from "./instance.ts";
import type { Log } from "./log.ts";
import { readSessions, type SessionRecord } from "./session-record.ts";
import { tmux } from "./session-tmux.ts";
import { listWorkers, type WorkerState } from "./workers.ts";
import { sessionHome } from "./worker-home.ts";

export interface SessionState extends SessionRecord {
  state: CliState["activity"];
  /** What it waits for, in the CLI's words. */
  waitingFor: string | null;
  /** Terminals that show it. */
  attached: number;
  worker: string | null;
  born: string | null;
  /** When something was last said in it, or it was last opened. */
  activeAt: string;
}

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
  const said = worker && await askWorker(instance, worker.id);
  return {
    ...record,
    state: said?.activity ?? "stopped",
    waitingFor: said?.waitingFor ?? null,
    attached: said?.attached ?? 0,
    worker: worker?.name ?? null,
    born: worker?.born ?? null,
    activeAt: lastWords(instance, record),
  };
}

/** Of processes that live: the file of one that was killed stays. */
const script = `${tmux.join(" ")} list-clients -F client || exit
cd "$CLAUDE_CONFIG_DIR" || exit
echo "noted $(head -c 4096 ${notedFile} 2>/dev/null | tr -d '\\n')"
for file in ${ownFiles}/*.json; do
  pid=\${file##*/}
  [ -d "/proc/\${pid%.json}" ] && echo "own $(head -c 4096 "$file" | tr -d '\\n')"
done
true`;

/** Undefined where no CLI runs. */
async function askWorker(
  { docker }: Instance,
  id: string,
): Promise<CliState & { attached: number } | undefined> {
  const { exitCode, output } = await execIn(docker, id, ["bash", "-c", script]);
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

/** Where the CLI keeps the conversations of /workspace. */
const conversations = "projects/-workspace";

function conversationFiles(
  { home }: Pick<Instance, "home">,
  session: string,
): string[] {
  const directory = join(home.home, sessionHome(session), conversations);
  try {
    return readdirSync(directory)
      .filter((file) => file.endsWith(".jsonl"))
      .map((file) => join(directory, file));
  } catch {
    return [];
  }
}

/** Whether there is one to go on with: the CLI ends where it is told to and there is none. */
export function hasConversation(
  instance: Pick<Instance, "home">,
  session: string,
): boolean {
  return conversationFiles(instance, session).length > 0;
}

function lastWords(instance: Instance, record: SessionRecord): string {
  const times = conversationFiles(instance, record.name).map((file) =>
    statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0
  );
  return new Date(Math.max(Date.parse(record.usedAt), ...times)).toISOString();
}
