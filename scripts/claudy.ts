#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// claudy: the front door for people. So far: the daemon, the pool
// and the settings.

import process from "node:process";
import { confPath, explainSettings, settingFaults } from "../lib/config.ts";
import { restartDaemon, startDaemon, stopDaemon } from "../lib/daemon.ts";
import { type DaemonStatus, daemonStatus } from "../lib/daemon-status.ts";
import { runDocker } from "../lib/docker-cli.ts";
import { findContainer } from "../lib/docker.ts";
import { Failure } from "../lib/errors.ts";
import { type Instance, openInstance } from "../lib/instance.ts";
import { logToStderr } from "../lib/log.ts";
import { parsePublished } from "../lib/parent-spec.ts";
import { duration } from "../lib/units.ts";
import { liveWorkers } from "../lib/workers.ts";
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
