// The commands of claudy about sessions that there are.

import { statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import process from "node:process";
import type { CAC } from "cac";
import { Failure } from "../std/errors.ts";
import { type Instance } from "../instance/instance.ts";
import { openInstance } from "../instance/open.ts";
import { viewInstance } from "../instance/open.ts";
import { inheritRequest } from "../home/inherit.ts";
import { logToStderr } from "../std/log.ts";
import { resolveProject, sessionName } from "../project/project.ts";
import {
  findSession,
  removeSession,
  stopSession,
  syncSession,
} from "../session/session.ts";
import { listSessions, type SessionState } from "../session/list.ts";
import { showInWorker, type Shown } from "../session/tmux.ts";
import { columns } from "../std/text.ts";
import { span } from "../std/units.ts";
import { listWorkers } from "../worker/workers.ts";
import { oomText, tellOfMemory } from "../worker/status.ts";
import { lastLines, type LogOptions, printLog } from "../cli/logs.ts";
import { action, refuseWithoutTerminal } from "../cli/options.ts";
import { answer, confirm } from "../cli/output.ts";

const { env } = process;
const open = () => openInstance(env, logToStderr);
const view = () => viewInstance(env, logToStderr);

interface Options extends LogOptions {
  shell?: boolean;
  waiting?: boolean;
  yes?: boolean;
  json?: boolean;
  claudeHome?: unknown;
  inheritHooks?: boolean;
}

export const sessionActions = {
  list: async (options: Options) => {
    const instance = await view();
    const sessions = (await listSessions(instance, logToStderr))
      .filter(({ state }) => !options.waiting || state === "waiting");
    const text = columns([
      ["SESSION", "STATE", "TERMINALS", "WORKER", "AGE", "ACTIVE", "PROJECT"],
      ...sessions.map(row),
    ]);
    answer(sessions, text, options.json ?? false);
  },
  show: async (options: Options, name?: string) => {
    const instance = await view();
    const wanted = await nameOr(instance, name);
    const session = (await listSessions(instance, logToStderr))
      .find((session) => session.name === wanted);
    const rows = Object.entries(session ?? {}).map(([key, value]) => [
      key,
      String(value ?? ""),
    ]);
    answer(session, columns(rows), options.json ?? false);
  },
  rm: async (options: Options, name?: string) => {
    if (name === undefined) {
      throw new Failure("usage", "sessions rm needs the name of a session");
    }
    const instance = await open();
    const session = findSession(instance, name, logToStderr);
    const removed = session.name;
    logToStderr(`This goes: worker, conversations and settings of ${removed}`);
    logToStderr(`This stays: the project, ${session.project}`);
    await confirm(`Remove session ${removed}?`, options.yes ?? false);
    await removeSession(instance, removed, logToStderr);
    answer({ removed }, removed, options.json ?? false);
  },
  sync: async (options: Options, name?: string) => {
    const instance = await open();
    const record = findSession(
      instance,
      await nameOr(instance, name),
      logToStderr,
    );
    const request = inheritRequest(instance, env, options);
    if (!request) {
      throw new Failure(
        "usage",
        "The host's Claude settings are out of sight",
        {
          hint: "Run it on the host.",
        },
      );
    }
    const result = await syncSession(instance, record, request, logToStderr);
    const text = [
      ...result.written.map((file) => `brought in: ${file}`),
      ...result.removed.map((file) => `removed: ${file}`),
      ...result.kept.map((file) => `kept as the session changed it: ${file}`),
      ...result.left.map((what) => `not inherited: ${what}`),
    ].join("\n");
    answer(result, text || "Nothing has changed", options.json ?? false);
  },
};

/** What a person has to know besides the state, null for nothing. */
function reason(session: SessionState): string | null {
  const { state, oomKilledAt, memoryBytes, waitingFor } = session;
  if (state === "offline") return "its network has ended";
  if (state === "stopped" && oomKilledAt !== null) return oomText(memoryBytes);
  return waitingFor;
}

function row(session: SessionState): string[] {
  const { state, attached } = session;
  const why = reason(session);
  const ago = (time: string) => span(Date.now() - Date.parse(time));
  return [
    session.name,
    why === null ? state : `${state}: ${why}`,
    state === "stopped" ? "" : attached === 0 ? "detached" : String(attached),
    session.born ?? "",
    ago(session.createdAt),
    `${ago(session.activeAt)} ago`,
    session.project,
  ];
}

/** Adds claudy attach, stop, logs and sessions. */
export function addSessions(cli: CAC): void {
  cli.command("attach [name]", "Attach to a session (default: the one here)")
    .option("-s, --shell", "To a shell in its worker")
    .action(async (name: string | undefined, options: Options) => {
      const instance = await open();
      const session = await nameOr(instance, name);
      const found = (await listWorkers(instance))
        .find((worker) => worker.session === session);
      if (found?.state === "paused") {
        throw new Failure("busy", `The worker of "${session}" is paused`, {
          hint: `Let it go on: docker unpause ${found.name}`,
        });
      }
      if (found?.state !== "running") {
        throw new Failure("notFound", `Session "${session}" is not running`, {
          hint: "Open it in its project: claudy",
        });
      }
      refuseWithoutTerminal("Run it at one.");
      const what = options.shell ? "shell" : "session";
      return await showSession(instance, found, { what });
    });

  cli.command("stop [name]", "Stop a session; its conversation stays")
    .option("--json", "Print the session as JSON")
    .action(async (name: string | undefined, options: Options) => {
      const instance = await open();
      const session = await nameOr(instance, name);
      const stopped = await stopSession(instance, session, logToStderr);
      answer(
        { session, stopped },
        stopped ? session : `${session} was not running`,
        options.json ?? false,
      );
    });

  cli.command("logs [name]", "Print what a session's worker has logged")
    .option("-f, --follow", "Go on as the log grows")
    .option(
      "--tail <n>",
      "Begin so many lines before the end (default: all)",
    )
    .action(printLogs);

  cli.command("sessions [action] [name]", "list (default), show, rm or sync")
    .option("--waiting", "list: those alone that wait for you")
    .option("--yes", "rm: do not ask")
    .option(
      "--claude-home <dir>",
      "sync: from there (default: CLAUDE_HOME, else ~/.claude)",
    )
    .option("--inherit-hooks", "sync: hooks too")
    .option("--json", "Print them as JSON")
    .action(
      async (
        name: string | undefined,
        session: string | undefined,
        options: Options,
      ) =>
        await action("sessions", sessionActions, name ?? "list")(
          options,
          session,
        ),
    );
}

/** Shows it at this terminal, and tells of memory where that ended it. */
export async function showSession(
  instance: Instance,
  worker: { id: string; name: string },
  shown: Shown,
): Promise<number> {
  const since = Date.now();
  const code = await showInWorker(instance.docker, worker.id, env, shown);
  await tellOfMemory(instance, worker, {
    since,
    hint:
      "Set a higher WORKER_MEMORY in config/hal9000.conf, stop the session " +
      `and open it again: claudy stop ${worker.name}`,
  }, logToStderr);
  return code;
}

async function printLogs(
  name: string | undefined,
  options: Options,
): Promise<number | undefined> {
  const instance = await view();
  const session = await nameOr(instance, name);
  const worker = (await listWorkers(instance))
    .find((worker) => worker.session === session);
  if (worker) return await printLog(worker.id, options);
  const { home, names } = instance;
  const log = newest([home.log(session), home.log(names.session(session))]);
  const text = await readFile(log, "utf8").catch(() => {
    throw new Failure("notFound", `Session "${session}" has no log`, {
      hint: "Its conversation is another matter: open it with claudy.",
    });
  });
  answer(null, lastLines(text, options), false);
  return undefined;
}

/** The file that was written last; the first where none is there. */
function newest(files: [string, ...string[]]): string {
  const times = files.map((file) =>
    statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0
  );
  return files[times.indexOf(Math.max(...times))] ?? files[0];
}

/** The session that is named, else that of the working directory. */
async function nameOr(
  instance: Instance,
  name: string | undefined,
): Promise<string> {
  const wanted = name ?? sessionName(
    (await resolveProject(instance, {
      path: ".",
      cwd: process.cwd(),
      as: "project",
      allowAny: true,
    })).path,
  );
  return findSession(instance, wanted, logToStderr).name;
}
