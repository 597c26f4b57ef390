// claudy daemon: starts, stops and inspects the parent.

import { buildDigest } from "../std/build-digest.ts";
import {
  presentImage,
  refuseStart,
  restartDaemon,
  startDaemon,
  stopDaemon,
} from "../daemon/daemon.ts";
import { type DaemonStatus, daemonStatus } from "../daemon/status.ts";
import { Failure } from "../std/errors.ts";
import { findContainer } from "../docker/docker.ts";
import { findParent, type Instance } from "../instance/instance.ts";
import { writeSetting } from "../instance/config.ts";
import { readParentState } from "../instance/parent-state.ts";
import { ensureHome } from "../instance/volumes.ts";
import { openInstance, viewInstance } from "../instance/open.ts";
import {
  startConfiguredGateway,
  stopGateway,
} from "../gateway/gateway-process.ts";
import { type NetworkRequest, noRequest } from "../daemon/net.ts";
import { parsePublished } from "../daemon/specs.ts";
import { columns } from "../std/text.ts";
import { duration } from "../std/units.ts";
import { diskText } from "../worker/disk-use.ts";
import { promisedText } from "../worker/promised-memory.ts";
import { liveWorkers } from "../worker/workers.ts";
import type { CAC, Command } from "cac";
import { type LogOptions, printLog } from "../cli/logs.ts";
import { checkout } from "../std/checkout.ts";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import { flagsOf, listOf } from "../cli/options.ts";

interface DaemonOptions extends LogOptions {
  publish?: unknown;
  allowHost?: boolean;
  network?: unknown;
  yes?: boolean;
  json?: boolean;
}

const publishOption: Parameters<Command["option"]> = [
  "--publish <HOST:CONTAINER>",
  "Publish a worker port on 127.0.0.1; repeatable",
  { type: [String] },
];

const allowHostOption: Parameters<Command["option"]> = [
  "--allow-host",
  "Let workers connect to this machine's bridge and link-local addresses",
];

const networkOption: Parameters<Command["option"]> = [
  "--network <kind>",
  "Network of new workers, saved as WORKER_NETWORK: shared or isolated " +
  "(default: unchanged)",
];

const networkOf = (options: DaemonOptions): NetworkRequest => ({
  published: listOf(options.publish).map(parsePublished),
  allowHost: options.allowHost ?? false,
});

export function daemonCommand(io: Io): CAC {
  const cli = command("claudy daemon");
  const open = ({ network }: DaemonOptions = {}) =>
    openInstance(
      io.env,
      io.log,
      flagsOf({ network }, { network: "WORKER_NETWORK" }),
    );
  const view = () => viewInstance(io.env, io.log);

  cli.command("start", "Start the parent and its services")
    .option(...publishOption)
    .option(...allowHostOption)
    .option(...networkOption)
    .option("--yes", "No effect (never asks)")
    .option("--json", "Print the status as JSON")
    .example("claudy daemon start --publish 3000:3000")
    .action(async (options: DaemonOptions) => {
      const network = networkOf(options);
      const instance = await open(options);
      const env = saveNetwork(io, instance, options);
      if (options.network && await hasOtherNetwork(instance)) {
        io.log("Restarting the parent: WORKER_NETWORK has changed");
        await restartDaemon(instance, env, io.log, network);
      } else {
        await startDaemon(instance, env, io.log, network);
      }
      await startServers(io, instance);
      await showStatus(io, instance, options);
    });

  cli.command("stop", "Stop the parent; workers keep running")
    .option("--yes", "Do not ask while workers run")
    .option("--json", "Print the status as JSON")
    .action(async (options: DaemonOptions) => {
      const instance = await open();
      const live = await liveWorkers(instance);
      // Harmless: workers keep running, and the next start finds them.
      if (live.length > 0 && io.isInteractive) {
        await io.confirm(
          `Stop the parent while these workers run: ${live.join(", ")}?`,
          options.yes,
        );
      }
      await stopDaemon(instance, io.log);
      io.log("Parent stopped");
      if (live.length === 0 && await stopGateway(instance)) {
        io.log("MCP gateway stopped");
      }
      if (options.json) await showStatus(io, instance, options);
    });

  cli.command("restart", "Restart the parent")
    .option(...publishOption)
    .option(...allowHostOption)
    .option(...networkOption)
    .option("--yes", "No effect (never asks)")
    .option("--json", "Print the status as JSON")
    .action(async (options: DaemonOptions) => {
      const network = networkOf(options);
      const instance = await open(options);
      const env = saveNetwork(io, instance, options);
      await restartDaemon(instance, env, io.log, network);
      await startServers(io, instance);
      await showStatus(io, instance, options);
    });

  cli.command("status", "Show the status of the parent")
    .option("--json", "Print it as JSON")
    .action(async (options: DaemonOptions) =>
      await showStatus(io, await view(), options)
    );

  cli.command("logs", "Print the log of the parent")
    .option("-f, --follow", "Follow log output")
    .option("--tail <n>", "Number of lines to show from the end (default: all)")
    .action(async (options: DaemonOptions) => {
      const { docker, names } = await view();
      const parent = await findContainer(docker, names.parent);
      return await printLog(parent.Id, options);
    });

  return cli;
}

/**
 * Saves --network where every command reads it, so that the parent and the commands agree.
 * Returns the parent's environment.
 */
function saveNetwork(
  io: Pick<Io, "env" | "log">,
  instance: Instance,
  options: DaemonOptions,
): NodeJS.ProcessEnv {
  if (options.network === undefined) return io.env;
  refuseStart(instance);
  ensureHome(instance);
  const { WORKER_NETWORK: kind } = instance.settings;
  writeSetting(instance, "WORKER_NETWORK", kind);
  const { WORKER_NETWORK: set, ...env } = io.env;
  if (set && set !== kind) {
    io.log(
      `warning: WORKER_NETWORK=${set} in your environment overrides it for commands that you run`,
    );
  }
  return env;
}

async function hasOtherNetwork(instance: Instance): Promise<boolean> {
  const parent = await findParent(instance);
  if (parent?.State !== "running") return false;
  const state = readParentState(instance);
  return state?.network !== instance.settings.WORKER_NETWORK;
}

/** Starts the daemon if it does not run, after asking. */
export async function offerDaemon(
  io: Io,
  instance: Instance,
  yes: boolean | undefined,
): Promise<void> {
  const parent = instance.self ?? await findParent(instance);
  if (parent?.State === "running") return;
  await presentImage(instance); // else nothing is set up yet
  const state = parent?.State === "paused" ? "paused" : "not running";
  if (!yes && !io.isInteractive) {
    throw new Failure("unsafe", `The daemon is ${state}`, {
      hint: "Start it: claudy daemon start. Or pass --yes to start it now.",
    });
  }
  await io.confirm(`The daemon is ${state}. Start it?`, yes);
  await bringUp(io, instance);
}

/** Starts the parent, and the host's MCP servers if they are configured. */
export async function bringUp(
  io: Pick<Io, "env" | "log">,
  instance: Instance,
  network: NetworkRequest = noRequest,
): Promise<void> {
  await startDaemon(instance, io.env, io.log, network);
  await startServers(io, instance);
}

async function startServers(
  io: Pick<Io, "env" | "log">,
  instance: Instance,
): Promise<void> {
  await startConfiguredGateway(instance, { checkout, env: io.env }, io.log);
}

async function showStatus(
  io: Io,
  instance: Instance,
  { json }: DaemonOptions,
): Promise<void> {
  const status = await daemonStatus(instance);
  io.answer(status, statusText(status, await buildDigest()), json);
}

function buildText(build: string | null, own: string): string {
  if (build === null) return "unknown";
  return build === own ? build : `${build} (this command: ${own})`;
}

function hostText({ allowsHost, hostFault }: DaemonStatus): string {
  if (allowsHost === null) return "unknown";
  if (!allowsHost) return "out of reach of workers";
  return `workers can reach it: ${hostFault}`;
}

function egressText({ egress }: DaemonStatus): string {
  if (!egress) return "everything is refused: its rules cannot be read";
  const { preset, from, rules } = egress;
  return `preset ${preset} (${from}), rules: ${rules}`;
}

function statusText(status: DaemonStatus, own: string): string {
  const { phases, children, uptimeMs, volumes, published } = status;
  const each = phases.map(({ name, ms }) => `${name} ${duration(ms)}`);
  // Before the first health check, some seconds after a start, it is unknown.
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
    ["Build", buildText(status.build, own)],
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
    ["Egress", egressText(status)],
    ...(status.network === "isolated"
      ? [["Network", "isolated, unless a worker is started with another"]]
      : []),
    ["Workers", String(status.workers)],
    ["Memory", promisedText(status.memory)],
    ...status.overDisk.map((use) => ["Disk", diskText(use)]),
    ["Volumes", volumes.join(", ") || "none"],
    ["Host", hostText(status)],
    ["Published", published.join(", ") || "none"],
  ]);
}
