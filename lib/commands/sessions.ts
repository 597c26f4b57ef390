// The claudy commands for existing sessions.

import type { CAC } from "cac";
import { Failure, onEach } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { openInstance, viewInstance } from "../instance/open.ts";
import {
  readSessions,
  type SessionRecord,
} from "../instance/session-record.ts";
import { inheritRequest } from "../home/host-config.ts";
import { findSession } from "../session/find.ts";
import { removeSession, stopSession, syncSession } from "../session/session.ts";
import { listSessions, type SessionState } from "../session/list.ts";
import { columns } from "../std/text.ts";
import { span } from "../std/units.ts";
import { listWorkers } from "../worker/workers.ts";
import { limitText } from "../worker/limit-events.ts";
import { oomText } from "../worker/status.ts";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";

interface Options {
  all?: boolean;
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
      const sessions = (await listSessions(instance, io.env, io.log))
        .filter(({ state }) => !waiting || state === "waiting");
      const text = columns([
        ["SESSION", "STATE", "TERMINALS", "WORKER", "AGE", "ACTIVE", "PROJECT"],
        ...sessions.map(row),
      ]);
      io.answer(sessions, text, json);
      if (sessions.length > 0 || json) return;
      io.log(
        waiting
          ? "No session waits for input"
          : "There are no sessions. Open one: claudy DIRECTORY",
      );
    });

  cli.command("show [name]", "Show a session (default: the one here)")
    .option("--json", "Print it as JSON")
    .action(async (name: unknown, { json }: Options) => {
      const instance = await view(io);
      const wanted = namedSession(io, instance, name);
      const session = (await listSessions(instance, io.env, io.log))
        .find((session) => session.name === wanted.name);
      io.answer(session, columns(detailRows(session ?? {})), json);
    });

  cli.command(
    "rm <...names>",
    "Remove sessions, after asking; their projects stay",
  )
    .option("--yes", "Do not ask; takes only whole names")
    .option("--json", "Print their names as JSON")
    .action(async (words: string[], { yes, json }: Options) => {
      const instance = await open(io);
      const found = namedSessions(io, instance, words);
      for (const { name, project } of found) {
        if (yes && !words.includes(name)) {
          throw new Failure("unsafe", `--yes needs the whole name: ${name}`);
        }
        io.log(
          `Will be removed: worker, conversations and settings of ${name}`,
        );
        io.log(`Will be kept: the project, ${project}`);
      }
      const names = found.map(({ name }) => name);
      const what = names.length === 1 ? "session" : "sessions";
      await io.confirm(`Remove ${what} ${names.join(", ")}?`, yes);
      const remove = ({ name }: SessionRecord) =>
        removeSession(instance, name, io.log);
      await onEach(found, remove, (removed) =>
        io.answer(
          words.length === 1 ? { removed: removed[0] } : { removed },
          removed.join("\n"),
          json,
        ));
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
  const record = namedSession(io, instance, name);
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
  const { state, oomKilledAt, memoryBytes } = session;
  const killed = state === "stopped" && oomKilledAt !== null;
  const details = [
    detailOf(session),
    killed ? oomText(memoryBytes) : limitText(session.limitEvents),
  ].filter(Boolean).join("; ");
  return details === "" ? state : `${state}: ${details}`;
}

function detailOf(session: SessionState): string {
  const { state, waitingFor, exitCode, loggedIn, worker } = session;
  if (state === "offline") return "its network has ended";
  if (exitCode && session.oomKilledAt === null) {
    return `exit code ${exitCode}`;
  }
  if (waitingFor !== null) return waitingFor;
  // A session that works is logged in, whatever its files say.
  const works = worker === null || state === "working";
  return loggedIn || works ? "" : "not logged in";
}

/** A row for each value; an object is shown in one. */
export function detailRows(shown: object): string[][] {
  return Object.entries(shown).map(([key, value]) => [
    key,
    typeof value === "object" && value !== null
      ? detailRows(value).map((pair) => pair.join(" ")).join(", ")
      : String(value ?? ""),
  ]);
}

function row(session: SessionState): string[] {
  const { attached } = session;
  const ago = (time: string) => span(Date.now() - Date.parse(time));
  return [
    session.name,
    stateText(session),
    session.worker === null
      ? ""
      : attached === 0
      ? "detached"
      : String(attached),
    session.born ?? "",
    ago(session.createdAt),
    `${ago(session.activeAt)} ago`,
    session.project,
  ];
}

export function stopCommand(io: Io): CAC {
  const cli = command("claudy stop");
  cli.command(
    "[...names]",
    "Stop sessions (default: the one here) and keep their conversations",
  )
    .option("--all", "Stop all sessions, after asking")
    .option("--yes", "Do not ask")
    .option("--json", "Print the session as JSON, or a list of several")
    .action((words: string[], options: Options) => stop(io, words, options));
  return cli;
}

async function stop(
  io: Io,
  words: string[],
  { all, yes, json }: Options,
): Promise<void> {
  const instance = await open(io);
  if (all && words.length > 0) {
    throw new Failure("usage", "--all takes no names");
  }
  const found = all
    ? await sessionsWithWorker(instance)
    : words.length === 0
    ? [namedSession(io, instance, undefined)]
    : namedSessions(io, instance, words);
  const names = found.map(({ name }) => name);
  if (all && names.length > 0) {
    await io.confirm(`Stop ${names.join(", ")}?`, yes);
  }
  const ran = new Map<string, boolean>();
  const stopOne = async ({ name }: SessionRecord) =>
    void ran.set(name, await stopSession(instance, name, io.log));
  await onEach(found, stopOne, (done) => {
    const stopped = done.map((session) => ({
      session,
      stopped: ran.get(session) ?? false,
    }));
    const lines = stopped.map(({ session, stopped }) =>
      stopped ? session : `${session} was not running`
    );
    const single = !all && words.length < 2;
    io.answer(single ? stopped[0] : stopped, lines.join("\n"), json);
  });
}

async function sessionsWithWorker(
  instance: Instance,
): Promise<SessionRecord[]> {
  const live = new Set(
    (await listWorkers(instance)).map(({ session }) => session),
  );
  return readSessions(instance).filter(({ name }) => live.has(name));
}

/** The session that is named, or that of the working directory. */
export function namedSession(
  io: Io,
  instance: Instance,
  word: unknown,
): SessionRecord {
  return findSession(
    instance,
    word === undefined ? "." : String(word),
    io.cwd(),
    io.log,
  );
}

/** All sessions that are named, each once; throws if one is missing. */
function namedSessions(
  io: Io,
  instance: Instance,
  words: string[],
): SessionRecord[] {
  const found = new Map<string, SessionRecord>();
  for (const word of words) {
    try {
      const session = namedSession(io, instance, word);
      found.set(session.name, session);
    } catch (error) {
      if (!(error instanceof Failure) || words.length === 1) throw error;
      throw new Failure(error.kind, error.message, {
        hint: `Nothing was done. ${error.hint ?? ""}`.trim(),
        cause: error,
      });
    }
  }
  return [...found.values()];
}
