#!/usr/bin/env -S sh -c 'exec "$(dirname "$(readlink -f "$0")")"/launch "$0" "$@"'
// claudy: the front door for people. So far: the daemon.

import process from "node:process";
import {
  type DaemonStatus,
  daemonStatus,
  restartDaemon,
  startDaemon,
  stopDaemon,
} from "../lib/daemon.ts";
import { Failure } from "../lib/errors.ts";
import { type Instance, openInstance } from "../lib/instance.ts";
import { logToStderr } from "../lib/log.ts";
import { duration } from "../lib/units.ts";
import { answer, columns, command, runCli } from "./cli.ts";

const cli = command("claudy");

const actions: Record<string, (instance: Instance) => Promise<void>> = {
  start: async (instance) => {
    await startDaemon(instance, process.env, logToStderr);
  },
  stop: (instance) => stopDaemon(instance, logToStderr),
  restart: async (instance) => {
    await restartDaemon(instance, process.env, logToStderr);
  },
  status: () => Promise.resolve(),
};

cli.command("daemon <action>", "start, stop, restart or status of the parent")
  .option("--json", "Print the status as JSON")
  .example("claudy daemon start")
  .action(async (action: string, options) => {
    const act = actions[action];
    if (!act) {
      throw new Failure("usage", `Unknown action "${action}" of daemon`, {
        hint: `Actions: ${Object.keys(actions).join(", ")}.`,
      });
    }
    const instance = await openInstance(process.env, logToStderr);
    await act(instance);
    const status = await daemonStatus(instance);
    answer(status, statusText(status), options.json);
  });

await runCli(cli);

function statusText(status: DaemonStatus): string {
  const { phases, children } = status;
  const total = phases.reduce((sum, { ms }) => sum + ms, 0);
  const health = status.health ? ` (${status.health})` : "";
  return columns([
    ["Parent", `${status.parent}${health}`],
    ["Image", status.image ?? "none"],
    ["Started", status.startedAt ?? "not"],
    [
      "Ready after",
      phases.length === 0
        ? "not yet"
        : `${duration(total)}: ${
          phases.map(({ name, ms }) => `${name} ${duration(ms)}`).join(", ")
        }`,
    ],
    ...children.map(({ name, pid, restarts }) => [
      name,
      `${pid === null ? "down" : `pid ${pid}`}, restarts: ${restarts}`,
    ]),
    ["Workers", String(status.workers)],
  ]);
}
