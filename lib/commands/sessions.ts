// The claudy commands for existing sessions.

import { statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import type { CAC } from "cac";
import { Failure } from "../std/errors.ts";
import { type Instance } from "../instance/instance.ts";
import { openInstance, viewInstance } from "../instance/open.ts";
import { inheritRequest } from "../home/inherit.ts";
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
import { limitEvents, limitText, tellOfPids } from "../worker/limit-events.ts";
import { oomText, tellOfMemory } from "../worker/status.ts";
import { lastLines, type LogOptions, printLog } from "../cli/logs.ts";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import { refuseWithoutTerminal } from "../cli/options.ts";

interface Options extends LogOptions {
  shell?: boolean;
  waiting?: boolean;
  yes?: boolean;
  json?: boolean;
  claudeHome?: unknown;
  inheritHooks?: boolean;
}

const open = (io: Io) => openInstance(io.env, io.log);
const view = (io: Io) => viewInstance(io.env, io.log);

export function sessionsCommand(io: Io): CAC {
  const cli = command("claudy sessions");

  cli.command("list", "List the sessions (default)").alias("!")
    .option("--waiting", "Only sessions waiting for input")
    .option("--json", "Print them as JSON")
    .action(async ({ waiting, json }: Options) => {
      const instance = await view(io);
      const sessions = (await listSessions(instance, io.log))
        .filter(({ state }) => !waiting || state === "waiting");
      const text = columns([
        ["SESSION", "STATE", "TERMINALS", "WORKER", "AGE", "ACTIVE", "PROJECT"],
        ...sessions.map(row),
      ]);
      io.answer(sessions, text, json);
    });

  cli.command("show [name]", "Show a session (default: the one here)")
    .option("--json", "Print it as JSON")
    .action(async (name: unknown, { json }: Options) => {
      const instance = await view(io);
      const wanted = await resolveName(io, instance, name);
      const session = (await listSessions(instance, io.log))
        .find((session) => session.name === wanted);
      const rows = Object.entries(session ?? {}).map(([key, value]) => [
        key,
        String(value ?? ""),
      ]);
      io.answer(session, columns(rows), json);
    });

  cli.command("rm <name>", "Remove a session, after asking; the project stays")
    .option("--yes", "Do not ask")
    .option("--json", "Print its name as JSON")
    .action(async (name: unknown, { yes, json }: Options) => {
      const instance = await open(io);
      const session = findSession(instance, String(name), io.log);
      const removed = session.name;
      io.log(
        `Will be removed: worker, conversations and settings of ${removed}`,
      );
      io.log(`Will be kept: the project, ${session.project}`);
      await io.confirm(`Remove session ${removed}?`, yes);
      await removeSession(instance, removed, io.log);
      io.answer({ removed }, removed, json);
    });

  cli.command(
    "sync [name]",
    "Copy the host's Claude settings into a stopped session",
  )
    .option(
      "--claude-home <dir>",
      "Directory to copy from (default: CLAUDE_HOME or ~/.claude)",
    )
    .option("--inherit-hooks", "Also inherit hooks")
    .option("--json", "Print what was done as JSON")
    .action((name: unknown, options: Options) => sync(io, name, options));

  return cli;
}

async function sync(io: Io, name: unknown, options: Options): Promise<void> {
  const instance = await open(io);
  const wanted = await resolveName(io, instance, name);
  const record = findSession(instance, wanted, io.log);
  const request = inheritRequest(instance, io.env, options);
  if (!request) {
    throw new Failure(
      "usage",
      "Cannot read the host's Claude settings from here",
      {
        hint: "Run it on the host.",
      },
    );
  }
  const result = await syncSession(instance, record, request, io.log);
  const text = [
    ...result.written.map((file) => `copied: ${file}`),
    ...result.removed.map((file) => `removed: ${file}`),
    ...result.kept.map((file) => `kept (changed by the session): ${file}`),
    ...result.left.map((what) => `not inherited: ${what}`),
  ].join("\n");
  io.answer(result, text || "No changes", options.json);
}

/** The state with its details. */
export function stateText(session: SessionState): string {
  const { state, oomKilledAt, memoryBytes, waitingFor } = session;
  const killed = state === "stopped" && oomKilledAt !== null;
  const details = [
    state === "offline" ? "its network has ended" : waitingFor ?? "",
    killed ? oomText(memoryBytes) : limitText(session.limitEvents),
  ].filter(Boolean).join("; ");
  return details === "" ? state : `${state}: ${details}`;
}

function row(session: SessionState): string[] {
  const { state, attached } = session;
  const ago = (time: string) => span(Date.now() - Date.parse(time));
  return [
    session.name,
    stateText(session),
    state === "stopped" ? "" : attached === 0 ? "detached" : String(attached),
    session.born ?? "",
    ago(session.createdAt),
    `${ago(session.activeAt)} ago`,
    session.project,
  ];
}

export function attachCommand(io: Io): CAC {
  const cli = command("claudy attach");
  cli.command("[name]", "Attach to a session (default: the one here)")
    .option("-s, --shell", "Open a shell in its worker")
    .action(async (name: unknown, options: Options) => {
      const instance = await open(io);
      const session = await resolveName(io, instance, name);
      const found = (await listWorkers(instance))
        .find((worker) => worker.session === session);
      if (found?.state === "paused") {
        throw new Failure("busy", `The worker of "${session}" is paused`, {
          hint: `Resume it: docker unpause ${found.name}`,
        });
      }
      if (found?.state !== "running") {
        throw new Failure("notFound", `Session "${session}" is not running`, {
          hint: "Start it in its project: claudy",
        });
      }
      refuseWithoutTerminal(io, "Run it in a terminal.");
      const what = options.shell ? "shell" : "session";
      return await showSession(io, instance, found, { what });
    });
  return cli;
}

export function stopCommand(io: Io): CAC {
  const cli = command("claudy stop");
  cli.command("[name]", "Stop a session and keep its conversation")
    .option("--json", "Print the session as JSON")
    .action(async (name: unknown, { json }: Options) => {
      const instance = await open(io);
      const session = await resolveName(io, instance, name);
      const stopped = await stopSession(instance, session, io.log);
      const text = stopped ? session : `${session} was not running`;
      io.answer({ session, stopped }, text, json);
    });
  return cli;
}

export function logsCommand(io: Io): CAC {
  const cli = command("claudy logs");
  cli.command("[name]", "Print the log of a session's worker")
    .option("-f, --follow", "Follow log output")
    .option("--tail <n>", "Number of lines to show from the end (default: all)")
    .action((name: unknown, options: Options) => printLogs(io, name, options));
  return cli;
}

/** Shows a session in this terminal, and reports if it ran out of memory. */
export async function showSession(
  io: Io,
  instance: Instance,
  worker: { id: string; name: string },
  shown: Shown,
): Promise<number> {
  const since = Date.now();
  const before = await limitEvents(instance, worker.id);
  const code = await showInWorker(instance.docker, worker.id, io.env, shown);
  const after = await limitEvents(instance, worker.id);
  if (after?.pidsRefused !== before?.pidsRefused) {
    tellOfPids({ name: worker.name, events: after }, io.log);
  }
  await tellOfMemory(instance, worker, {
    since,
    hint:
      "Set a higher WORKER_MEMORY in config/hal9000.conf, stop the session " +
      `and open it again: claudy stop ${worker.name}`,
  }, io.log);
  return code;
}

async function printLogs(
  io: Io,
  name: unknown,
  options: Options,
): Promise<number | undefined> {
  const instance = await view(io);
  const session = await resolveName(io, instance, name);
  const worker = (await listWorkers(instance))
    .find((worker) => worker.session === session);
  if (worker) return await printLog(worker.id, options);
  const { home, names } = instance;
  const log = newest([home.log(session), home.log(names.session(session))]);
  const text = await readFile(log, "utf8").catch(() => {
    throw new Failure("notFound", `Session "${session}" has no log`, {
      hint: "To see its conversation, open it with claudy.",
    });
  });
  io.answer(null, lastLines(text, options));
  return undefined;
}

/** The most recently written file; the first if none exists. */
function newest(files: [string, ...string[]]): string {
  const times = files.map((file) =>
    statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0
  );
  return files[times.indexOf(Math.max(...times))] ?? files[0];
}

/** The named session, or that of the working directory. */
async function resolveName(
  io: Io,
  instance: Instance,
  name: unknown,
): Promise<string> {
  const wanted = name !== undefined ? String(name) : sessionName(
    (await resolveProject(instance, {
      path: ".",
      cwd: io.cwd(),
      as: "project",
      allowAny: true,
    })).path,
  );
  return findSession(instance, wanted, io.log).name;
}
