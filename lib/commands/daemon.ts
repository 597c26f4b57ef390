// The actions of claudy daemon.

import process from "node:process";
import { buildDigest } from "../std/build-digest.ts";
import { restartDaemon, startDaemon, stopDaemon } from "../daemon/daemon.ts";
import { type DaemonStatus, daemonStatus } from "../daemon/status.ts";
import { findContainer } from "../docker/docker.ts";
import { Failure } from "../std/errors.ts";
import { findParent, type Instance } from "../instance/instance.ts";
import { openInstance } from "../instance/open.ts";
import { viewInstance } from "../instance/open.ts";
import { logToStderr } from "../std/log.ts";
import {
  startConfiguredGateway,
  stopGateway,
} from "../gateway/gateway-process.ts";
import { parsePublished, type PublishedPort } from "../daemon/specs.ts";
import { columns } from "../std/text.ts";
import { duration } from "../std/units.ts";
import { liveWorkers } from "../worker/workers.ts";
import type { CAC } from "cac";
import { type LogOptions, printLog } from "../cli/logs.ts";
import { checkout } from "../std/checkout.ts";
import { action, listOf } from "../cli/options.ts";
import { answer, confirm } from "../cli/output.ts";

const { env } = process;

interface DaemonOptions extends LogOptions {
  publish?: unknown;
  yes?: boolean;
  json?: boolean;
}

export const daemonActions = {
  start: async (instance: Instance, options: DaemonOptions) => {
    const ports = listOf(options.publish).map(parsePublished);
    await bringUp(instance, ports);
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
    if (live.length === 0 && await stopGateway(instance)) {
      logToStderr("MCP gateway stopped");
    }
    if (options.json) await showStatus(instance, options);
  },
  restart: async (instance: Instance, options: DaemonOptions) => {
    const ports = listOf(options.publish).map(parsePublished);
    await restartDaemon(instance, env, logToStderr, ports);
    await startConfiguredGateway(instance, { checkout, env }, logToStderr);
    await showStatus(instance, options);
  },
  status: showStatus,
  logs: async (instance: Instance, options: DaemonOptions) => {
    const parent = await findContainer(instance.docker, instance.names.parent);
    return await printLog(parent.Id, options);
  },
};

/** Adds claudy daemon. */
export function addDaemon(cli: CAC): void {
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
      const views = ["status", "logs"].includes(name);
      const open = views ? viewInstance : openInstance;
      return await act(await open(env, logToStderr), options);
    });
}

/** Without a parent there is no session: one is started, after asking. */
export async function offerDaemon(
  instance: Instance,
  yes: boolean,
): Promise<void> {
  const parent = instance.self ?? await findParent(instance);
  if (parent?.State === "running") return;
  const state = parent?.State === "paused" ? "paused" : "not running";
  await confirm(`The daemon is ${state}. Start it?`, yes);
  await bringUp(instance);
}

/** The parent, and the host's MCP servers where they are configured. */
export async function bringUp(
  instance: Instance,
  ports: PublishedPort[] = [],
): Promise<void> {
  await startDaemon(instance, env, logToStderr, ports);
  await startConfiguredGateway(instance, { checkout, env }, logToStderr);
}

async function showStatus(
  instance: Instance,
  options: DaemonOptions,
): Promise<void> {
  const status = await daemonStatus(instance);
  answer(status, statusText(status), options.json ?? false);
}

function buildText(build: string | null): string {
  const own = buildDigest(checkout);
  if (build === null) return "unknown";
  return build === own ? build : `${build}, other than this command's ${own}`;
}

function statusText(status: DaemonStatus): string {
  const { phases, children, uptimeMs, volumes, published } = status;
  const each = phases.map(({ name, ms }) => `${name} ${duration(ms)}`);
  // The first check comes seconds after a start; what it would say is unknown.
  const checked = status.health !== null && status.health !== "starting";
  const health = checked ? ` (${status.health})` : "";
  const answers = {
    true: "answers",
    false: `does not answer: ${status.chromadbFault}`,
    null: "unknown",
  };
  return columns([
    ["Parent", `${status.parent}${health}`],
    ["Image", status.image ?? "none"],
    ["Build", buildText(status.build)],
    ["Uptime", uptimeMs === null ? "none" : duration(uptimeMs)],
    [
      "Ready after",
      status.readyMs === null
        ? "not yet"
        : `${duration(status.readyMs)}: ${each.join(", ")}`,
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
