#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// claudy: the front door for people: sessions, the daemon, the pool, settings.

import { resolve } from "node:path";
import process from "node:process";
import { confPath, explainSettings, settingFaults } from "../lib/config.ts";
import { restartDaemon, startDaemon, stopDaemon } from "../lib/daemon.ts";
import { type DaemonStatus, daemonStatus } from "../lib/daemon-status.ts";
import { runDocker } from "../lib/docker-cli.ts";
import { findContainer } from "../lib/docker.ts";
import { stopWorker } from "../lib/ending.ts";
import { Failure } from "../lib/errors.ts";
import { findParent, type Instance, openInstance } from "../lib/instance.ts";
import { logToStderr } from "../lib/log.ts";
import { parsePublished } from "../lib/parent-spec.ts";
import { duration } from "../lib/units.ts";
import { resolveProject, sessionName } from "../lib/project.ts";
import {
  asClient,
  attachCommand,
  claimOrSpawn,
  endClient,
  findSession,
  listSessions,
  openSession,
  passedOn,
  removeSession,
  stopSession,
} from "../lib/session.ts";
import { ensureHome } from "../lib/volumes.ts";
import { listWorkers, liveWorkers } from "../lib/workers.ts";
import { command, runCli } from "./cli.ts";
import { action, listOf, wholeNumber } from "./options.ts";
import {
  addPoolOptions,
  checkPoolOptions,
  poolActions,
  type PoolOptions,
} from "./pool.ts";
import { answer, columns, confirm } from "./output.ts";

const cli = command("claudy");
const { env } = process;

interface SessionOptions {
  name?: string;
  detach?: boolean;
  shell?: boolean;
  new?: boolean;
  allowAnyPath?: boolean;
  yes?: boolean;
  json?: boolean;
  waiting?: boolean;
  "--"?: string[];
}

cli.command("[directory]", "Open the session of a project (default: here)")
  .usage("[options] [directory] [-- arguments of claude...]")
  .option("-n, --name <name>", "One of several sessions of the project")
  .option("-d, --detach", "Start it and do not attach to it")
  .option("-s, --shell", "Attach to a shell in its worker")
  .option("--new", "Begin a new conversation")
  .option("--via-parent", "Accepted; it is what is done")
  .option("--allow-any-path", "Mount system directories and HAL9000_HOME too")
  .option("--yes", "Start the daemon without asking")
  .option("--json", "With --detach: print session and worker as JSON")
  .example("claudy ~/code/app")
  .example("claudy -d --name review . -- --model opus")
  .action(openProject);

cli.command("attach [name]", "Attach to a session (default: the one here)")
  .option("-s, --shell", "To a shell in its worker")
  .action(async (name: string | undefined, options: SessionOptions) => {
    const instance = await openInstance(env, logToStderr);
    const session = await nameOr(instance, name);
    const found = (await listWorkers(instance)).find((worker) =>
      worker.session === session && worker.state === "running"
    );
    if (!found) {
      throw new Failure("notFound", `Session "${session}" is not running`, {
        hint: "Open it in its project: claudy",
      });
    }
    return await attachTo(instance, found.id, options);
  });

cli.command("stop [name]", "Stop a session; its conversation stays")
  .option("--json", "Print the session as JSON")
  .action(async (name: string | undefined, options: SessionOptions) => {
    const instance = await openInstance(env, logToStderr);
    const session = await nameOr(instance, name);
    const stopped = await stopSession(instance, session, logToStderr);
    answer(
      { session, stopped },
      stopped ? session : `${session} was not running`,
      options.json ?? false,
    );
  });

cli.command(
  "run <prompt>",
  "Ask Claude once in a worker of its own; print the answer",
)
  .option("-p", "Accepted; it is what is done")
  .option("-C, --project <dir>", "The project (default: here)")
  .option("--yes", "Start the daemon without asking")
  .option("--json", "Print the CLI's JSON")
  .example('claudy run -p "explain this project"')
  .action(runPrompt);

const sessionActions = {
  list: async (options: SessionOptions) => {
    const instance = await openInstance(env, logToStderr);
    ensureHome(instance);
    const sessions = (await listSessions(instance, logToStderr))
      .filter(({ state }) => !options.waiting || state === "waiting");
    const rows = sessions.map((session) => [
      session.name,
      session.waitingFor === null
        ? session.state
        : `${session.state}: ${session.waitingFor}`,
      String(session.attached),
      session.born ?? "",
      session.usedAt,
      session.project,
    ]);
    const text = columns([
      ["SESSION", "STATE", "ATTACHED", "WORKER", "LAST OPENED", "PROJECT"],
      ...rows,
    ]);
    answer(sessions, text, options.json ?? false);
  },
  show: async (options: SessionOptions, name?: string) => {
    const instance = await openInstance(env, logToStderr);
    const wanted = await nameOr(instance, name);
    const session = (await listSessions(instance, logToStderr))
      .find((session) => session.name === wanted);
    const rows = Object.entries(session ?? {}).map(([key, value]) => [
      key,
      String(value ?? ""),
    ]);
    answer(session, columns(rows), options.json ?? false);
  },
  rm: async (options: SessionOptions, name?: string) => {
    if (name === undefined) {
      throw new Failure("usage", "sessions rm needs the name of a session");
    }
    const instance = await openInstance(env, logToStderr);
    const session = findSession(instance, name, logToStderr);
    logToStderr(`This goes: worker, conversations and settings of ${name}`);
    logToStderr(`This stays: the project, ${session.project}`);
    await confirm(`Remove session ${name}?`, options.yes ?? false);
    await removeSession(instance, name, logToStderr);
    answer({ removed: name }, name, options.json ?? false);
  },
};

cli.command(
  "sessions [action] [name]",
  "list (default), show or rm of sessions",
)
  .option("--waiting", "list: those alone that wait for you")
  .option("--yes", "rm: do not ask")
  .option("--json", "Print them as JSON")
  .action(
    async (
      name: string | undefined,
      session: string | undefined,
      options: SessionOptions,
    ) =>
      await action("sessions", sessionActions, name ?? "list")(
        options,
        session,
      ),
  );

interface DaemonOptions {
  publish?: unknown;
  yes?: boolean;
  json?: boolean;
  follow?: boolean;
  tail?: unknown;
}

const daemonActions = {
  start: async (instance: Instance, options: DaemonOptions) => {
    const ports = listOf(options.publish).map(parsePublished);
    await startDaemon(instance, env, logToStderr, ports);
    await showStatus(instance, options);
  },
  stop: async (instance: Instance, options: DaemonOptions) => {
    const live = await liveWorkers(instance);
    // Nothing is lost: they keep running, and the next start finds them.
    if (live.length > 0 && process.stdin.isTTY) {
      await confirm(
        `Stop the parent under ${live.join(", ")}?`,
        options.yes ?? false,
      );
    }
    await stopDaemon(instance, logToStderr);
    logToStderr("Parent stopped");
    if (options.json) await showStatus(instance, options);
  },
  restart: async (instance: Instance, options: DaemonOptions) => {
    const ports = listOf(options.publish).map(parsePublished);
    await restartDaemon(instance, env, logToStderr, ports);
    await showStatus(instance, options);
  },
  status: showStatus,
  logs: async (instance: Instance, options: DaemonOptions) => {
    const tail = wholeNumber("--tail", options.tail);
    const parent = await findContainer(instance.docker, instance.names.parent);
    return await runDocker([
      "logs",
      ...(options.follow ? ["--follow"] : []),
      ...(tail === undefined ? [] : [`--tail=${tail}`]),
      parent.Id,
    ]);
  },
};

cli.command(
  "daemon <action>",
  "start, stop, restart, status or logs of the parent",
)
  .option(
    "--publish <HOST:CONTAINER>",
    "start: a port of the workers, on 127.0.0.1; repeatable",
    {
      type: [String],
    },
  )
  .option("--yes", "stop: do not ask while workers run")
  .option("-f, --follow", "logs: go on as the log grows")
  .option(
    "--tail <n>",
    "logs: begin so many lines before the end (default: all)",
  )
  .option("--json", "Print the status as JSON")
  .example("claudy daemon start --publish 3000:3000")
  .action(async (name: string, options: DaemonOptions) => {
    const act = action("daemon", daemonActions, name);
    const publishes = ["start", "restart"].includes(name);
    if (!publishes && listOf(options.publish).length > 0) {
      throw new Failure("usage", `--publish is nothing for daemon ${name}`, {
        hint: "Give it to start or restart.",
      });
    }
    return await act(await openInstance(env, logToStderr), options);
  });

addPoolOptions(
  cli.command(
    "pool <action> [argument]",
    `${Object.keys(poolActions).join(", ")} of the warm workers`,
  ),
).action(
  async (name: string, argument: unknown, options: PoolOptions) => {
    const act = action("pool", poolActions, name);
    const text = argument === undefined ? undefined : String(argument);
    checkPoolOptions(name, act, options, text);
    await act.run(options, text);
  },
);

const configActions = {
  show: (json: boolean) => {
    const settings = explainSettings(env, { warn: logToStderr });
    const rows = settings.map(({ key, text, place }) => [key, text, place]);
    const text = columns([["SETTING", "VALUE", "FROM"], ...rows]);
    answer(settings, text, json);
  },
  path: (json: boolean) => answer({ path: confPath(env) }, confPath(env), json),
  check: (json: boolean) => {
    const faults = settingFaults(env);
    answer(faults, faults.join("\n") || "No fault", json);
    return faults.length === 0 ? 0 : 2;
  },
};

cli.command("config <action>", "show, path or check of the settings")
  .option("--json", "Print it as JSON")
  .action((name: string, options: { json?: boolean }) =>
    action("config", configActions, name)(options.json ?? false)
  );

await runCli(cli);

async function openProject(
  directory: string | undefined,
  options: SessionOptions,
): Promise<number | undefined> {
  if (options.json && !options.detach) {
    throw new Failure("usage", "--json needs --detach");
  }
  if (!options.detach) refuseWithoutTerminal();
  const instance = await openInstance(env, logToStderr);
  await offerDaemon(instance, options);
  const opened = await openSession(instance, {
    directory: directory ?? ".",
    cwd: process.cwd(),
    name: options.name,
    allowAnyPath: options.allowAnyPath ?? false,
    fresh: options.new ?? false,
    claudeArguments: options["--"] ?? [],
    env,
  }, logToStderr);
  if (options.detach) {
    answer(opened, opened.session, options.json ?? false);
    return;
  }
  const code = await attachTo(instance, opened.id, options);
  if (code === 0) logToStderr(`Again: claudy attach ${opened.session}`);
  return code;
}

/** `claude -p` in a worker that is there for it alone; gives its exit code. */
async function runPrompt(
  prompt: string,
  options: SessionOptions & { project?: string },
): Promise<number> {
  const instance = await openInstance(env, logToStderr);
  await offerDaemon(instance, options);
  ensureHome(instance);
  const { worker } = await claimOrSpawn(instance, {
    directory: resolve(options.project ?? "."),
    cwd: process.cwd(),
  }, logToStderr);
  try {
    // By name alone: docker takes the values from its own environment.
    const variables = ["ANTHROPIC_API_KEY", ...Object.keys(passedOn(env))]
      .filter((name) => env[name]);
    return await runDocker([
      "exec",
      "--interactive",
      ...variables.map((name) => `--env=${name}`),
      worker.id,
      "claude",
      "-p",
      ...(options.json ? ["--output-format", "json"] : []),
      ...(options["--"] ?? []),
      "--",
      String(prompt),
    ]);
  } finally {
    await stopWorker(instance, worker, logToStderr);
  }
}

async function attachTo(
  { docker }: Instance,
  id: string,
  options: SessionOptions,
): Promise<number> {
  refuseWithoutTerminal();
  const client = crypto.randomUUID();
  const terminal = env["TERM"] ?? "";
  // Others are unknown to the worker's tmux.
  const known = /^(xterm|tmux|screen|linux|vt100)/.test(terminal);
  return await runDocker([
    "exec",
    "--interactive",
    "--tty",
    `--env=TERM=${known ? terminal : "xterm-256color"}`,
    id,
    ...asClient(client, options.shell ? ["bash"] : attachCommand),
  ], () => endClient(docker, id, client));
}

function refuseWithoutTerminal(): void {
  if (process.stdin.isTTY === true) return;
  throw new Failure("usage", "Cannot attach: stdin is no terminal", {
    hint: "Start it with --detach.",
  });
}

/** Without a parent there is no session: one is started, after asking. */
async function offerDaemon(
  instance: Instance,
  options: SessionOptions,
): Promise<void> {
  const parent = instance.self ?? await findParent(instance);
  if (parent?.State === "running") return;
  await confirm("The daemon is not running. Start it?", options.yes ?? false);
  await startDaemon(instance, env, logToStderr);
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

async function showStatus(
  instance: Instance,
  options: DaemonOptions,
): Promise<void> {
  const status = await daemonStatus(instance);
  answer(status, statusText(status), options.json ?? false);
}

function statusText(status: DaemonStatus): string {
  const { phases, children, uptimeMs, volumes, published } = status;
  const total = phases.reduce((sum, { ms }) => sum + ms, 0);
  const each = phases.map(({ name, ms }) => `${name} ${duration(ms)}`);
  // The first check comes seconds after a start; what it would say is unknown.
  const checked = status.health !== null && status.health !== "starting";
  const health = checked ? ` (${status.health})` : "";
  const answers = {
    true: "answers",
    false: "does not answer",
    null: "unknown",
  };
  return columns([
    ["Parent", `${status.parent}${health}`],
    ["Image", status.image ?? "none"],
    ["Uptime", uptimeMs === null ? "none" : duration(uptimeMs)],
    [
      "Ready after",
      phases.length === 0
        ? "not yet"
        : `${duration(total)}: ${each.join(", ")}`,
    ],
    ["ChromaDB", answers[`${status.chromadb}`]],
    ...children.map(({ name, pid, restarts }) => [
      `Child ${name}`,
      `${pid === null ? "down" : `pid ${pid}`}, restarts: ${restarts}`,
    ]),
    ["Workers", String(status.workers)],
    ["Volumes", volumes.join(", ") || "none"],
    ["Published", published.join(", ") || "none"],
  ]);
}
