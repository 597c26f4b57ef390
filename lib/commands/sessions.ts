// The claudy commands for existing sessions.

import { existsSync } from "node:fs";
import type { CAC } from "cac";
import { Failure, messageOf, onEach } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { openInstance, viewInstance } from "../instance/open.ts";
import type { SessionRecord } from "../instance/session-record.ts";
import { inheritRequest } from "../home/host-config.ts";
import { removeSession, syncSession } from "../session/session.ts";
import { listSessions, type SessionState } from "../session/list.ts";
import { columns } from "../std/text.ts";
import { binarySize, figureCell, span } from "../std/units.ts";
import { todayText } from "../usage/status.ts";
import { limitText } from "../worker/limit-events.ts";
import { oomText } from "../worker/status.ts";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import { namedSession, withNetworks } from "./workers.ts";
import { plantedIn } from "../project/guarding.ts";
import type { Log } from "../std/log.ts";
import { measureCopies, type Workspace } from "../workspace/workspace.ts";

interface Options {
  waiting?: boolean;
  size?: boolean;
  overlap?: boolean;
  yes?: boolean;
  force?: boolean;
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
    .option("--size", "Also what their copies take on disk")
    .option(
      "--overlap",
      "Also which files two sessions of a project have both changed",
    )
    .option("--json", "Print them as JSON")
    .action(async ({ waiting, size, overlap, json }: Options) => {
      const instance = await view(io);
      const [here, there] = await Promise.all([
        listSessions(instance, io.env, io.log),
        elsewhere(io, instance),
      ]);
      const measured = size ? await measureCopies(instance, here) : here;
      const { sessions: compared, lines } = overlap
        ? await withOverlaps(instance, measured, io.log)
        : { sessions: measured, lines: [] };
      const all: Shown[] = [
        ...compared.map((session) => ({
          ...session,
          host: null,
          seenAt: null,
        })),
        ...there,
      ];
      const sessions = all.filter(({ state }) =>
        !waiting || state === "waiting"
      );
      if (sessions.length > 0 || json) {
        const text = [sessionTable(sessions, io), ...lines].join("\n");
        io.answer(sessions, text, json);
      } else if (waiting) io.log("No session waits for input");
      else io.log("There are no sessions. Open one: claudy DIRECTORY");
    });

  cli.command("show [name]", "Show a session (default: the one here)")
    .option("--json", "Print it as JSON")
    .action(async (name: unknown, { json }: Options) => {
      const instance = await view(io);
      const wanted = namedSession(io, instance, name);
      const sessions = (await listSessions(instance, io.env, io.log))
        .filter((session) => session.name === wanted.name);
      const planted = plantedIn(instance, wanted.name)?.files ?? [];
      const rows = planted.map((
        { path, what },
      ) => ["planted", `${path}: ${what}`]);
      const [shown = wanted] = await measureCopies(instance, sessions);
      const text = columns([...detailRows(shown), ...rows]);
      io.answer({ ...shown, planted }, text, json);
    });

  cli.command(
    "rm <...names>",
    "Remove sessions, after asking; their projects stay",
  )
    .option("--yes", "Do not ask; takes only whole names")
    .option("--force", "Also if commits or changes in a copy would be lost")
    .option("--json", "Print their names as JSON")
    .action(async (words: string[], { yes, force, json }: Options) => {
      const instance = await open(io);
      const { found, missing } = namedSessions(io, instance, words);
      const check = async (session: SessionRecord) => {
        if (!force) await refuseLossOf(instance, session, io.log);
      };
      for (const session of found) {
        const { name, project, copy } = session;
        if (yes && !words.includes(name)) {
          throw new Failure("unsafe", `--yes needs the whole name: ${name}`, {
            hint: `Nothing was removed. Type: claudy sessions rm --yes ${name}`,
          });
        }
        await check(session);
        const parts = copy
          ? "worker, conversations, settings and copy"
          : "worker, conversations and settings";
        io.log(`Will be removed: ${parts} of ${name}`);
        io.log(`Will be kept: the project, ${project}`);
      }
      const names = found.map(({ name }) => name);
      const what = names.length === 1 ? "session" : "sessions";
      if (found.length > 0) {
        await io.confirm(`Remove ${what} ${names.join(", ")}?`, yes);
      }
      await onEach(
        [...found, ...missing],
        (one) =>
          "error" in one
            ? Promise.reject(one.error)
            : removeSession(instance, one.name, io.log, () => check(one)),
        (removed) =>
          removed.length > 0 && io.answer(
            words.length === 1 ? { removed: removed[0] } : { removed },
            removed.join("\n"),
            json,
          ),
      );
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

/** The sessions with what they and others have both changed, also as lines of text. */
async function withOverlaps<T extends SessionState>(
  instance: Instance,
  sessions: T[],
  log: Log,
): Promise<{ sessions: (T & { overlap: object[] })[]; lines: string[] }> {
  const { findOverlaps, overlapText } = await import("../workspace/overlap.ts");
  const overlaps = await findOverlaps(instance, sessions, log);
  const of = (name: string) =>
    overlaps.filter(({ sessions }) => sessions.includes(name))
      .map(({ sessions: [one, other], project: _, ...rest }) => ({
        session: name === one ? other : one,
        ...rest,
      }));
  return {
    sessions: sessions.map((session) => ({
      ...session,
      overlap: of(session.name),
    })),
    lines: [
      ...overlaps.slice(0, maxOverlaps).map(overlapText),
      ...(overlaps.length > maxOverlaps
        ? [`${overlaps.length - maxOverlaps} more pairs (see --json)`]
        : []),
    ],
  };
}

/** Pairs that are listed. */
const maxOverlaps = 20;

/** Throws if the session's copy has what the user's repository does not have. */
async function refuseLossOf(
  instance: Instance,
  session: SessionRecord,
  log: Log,
): Promise<void> {
  if (!session.copy) return;
  const { refuseLoss } = await import("../workspace/unfetched.ts");
  await refuseLoss(instance, { name: session.name }, log);
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

/** What the list shows of a session, here or on another machine. */
export type Shown =
  & Pick<
    SessionState,
    | "name"
    | "project"
    | "waitingFor"
    | "exitCode"
    | "loggedIn"
    | "attached"
    | "worker"
    | "born"
    | "createdAt"
    | "activeAt"
    | "oomKilledAt"
    | "memoryBytes"
    | "limitEvents"
    | "today"
  >
  & {
    state: string;
    permissionMode: string | null;
    network: string;
    copy?: boolean | undefined;
    workspace?: Workspace | undefined;
    /** Null for this machine. */
    host: string | null;
    /** When its host last answered; null if it answers now. */
    seenAt: string | null;
  };

/** The sessions of the hosts; says which ones do not answer. */
async function elsewhere(io: Io, instance: Instance): Promise<Shown[]> {
  // Loaded for those who have hosts.
  if (!existsSync(instance.home.hosts)) return [];
  const { sessionsElsewhere } = await import("../hosts/elsewhere.ts");
  const all = await sessionsElsewhere(instance, io.env).catch((error) => {
    // A damaged list of hosts hides no session that is here.
    io.log(`warning: ${messageOf(error)}`);
    return [];
  });
  for (const { fault } of all) {
    if (fault !== null) io.log(`warning: ${fault}`);
  }
  return all.flatMap(({ host, fault, seenAt, sessions }) =>
    sessions.map((session) => ({
      ...session,
      host,
      seenAt: fault === null ? null : seenAt,
    }))
  );
}

/** The state with its details. */
export function stateText(session: Omit<Shown, "host" | "seenAt">): string {
  const { state, oomKilledAt, memoryBytes } = session;
  const killed = state === "stopped" && oomKilledAt !== null;
  const details = [
    detailOf(session),
    killed ? oomText(memoryBytes) : limitText(session.limitEvents),
  ].filter(Boolean).join("; ");
  return details === "" ? state : `${state}: ${details}`;
}

function detailOf(session: Omit<Shown, "host" | "seenAt">): string {
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

/** In a narrower terminal, the columns that claudy sessions show has too are left out. */
const wideFrom = 110;

function sessionTable(
  sessions: Shown[],
  { width, env }: Io,
): string {
  const header = [
    ...["SESSION", "STATE", "MODE", "TERMINALS", "WORKER", "CREATED"],
    ...["ACTIVE", "PROJECT"],
  ];
  const rows = withColumns(
    withNetworks([header, ...sessions.map(row)], sessions),
    [
      ["TODAY", ({ today }) => todayText(today)],
      [
        "COPY",
        ({ workspace }) =>
          workspace ? figureCell(workspace.sizeBytes, binarySize) : "",
      ],
      ["HOST", ({ host }) => host ?? ""],
    ],
    sessions,
  );
  // A pipe gets whole paths.
  if (width === undefined) return columns(rows);
  const short = rows.map((cells) =>
    cells.with(-1, belowHome(cells.at(-1) ?? "", env["HOME"]))
  );
  const shown = width < wideFrom
    ? short.map((cells) => cells.toSpliced(4, 2))
    : short;
  return columns(shown, width);
}

/** A table with more columns before the last one, where they show anything. */
function withColumns(
  rows: string[][],
  more: [heading: string, cell: (session: Shown) => string][],
  sessions: Shown[],
): string[][] {
  const columns = more
    .map(([heading, cell]) => [heading, ...sessions.map(cell)])
    .filter(([, ...cells]) => cells.some((cell) => cell !== ""));
  return rows.map((row, at) =>
    row.toSpliced(-1, 0, ...columns.map((column) => column[at] ?? ""))
  );
}

/** Writes the user's home as ~. */
function belowHome(path: string, home = ""): string {
  return home !== "" && path.startsWith(`${home}/`)
    ? `~${path.slice(home.length)}`
    : path;
}

function row(session: Shown): string[] {
  const { attached } = session;
  const ago = (time: string) => `${span(Date.now() - Date.parse(time))} ago`;
  return [
    session.name,
    session.seenAt === null
      ? stateText(session)
      : `unreachable: ${session.state} ${ago(session.seenAt)}`,
    session.permissionMode ?? "-",
    session.worker === null
      ? ""
      : attached === 0
      ? "detached"
      : String(attached),
    session.born ?? "",
    ago(session.createdAt),
    ago(session.activeAt),
    session.copy ? `${session.project} (copy)` : session.project,
  ];
}

/** The sessions that are named, each once, and the errors of those that are missing. */
function namedSessions(
  io: Io,
  instance: Instance,
  words: string[],
): { found: SessionRecord[]; missing: { name: string; error: unknown }[] } {
  const found = new Map<string, SessionRecord>();
  const missing: { name: string; error: unknown }[] = [];
  for (const word of words) {
    try {
      const session = namedSession(io, instance, word);
      found.set(session.name, session);
    } catch (error) {
      missing.push({ name: word, error });
    }
  }
  return { found: [...found.values()], missing };
}
