// Starts and stops the gateway's process on the host. It outlives the terminal.

// Not zx: the process outlives this one, and has its own descriptors.
import { spawn } from "node:child_process";
import { closeSync, existsSync, rmSync } from "node:fs";
import { programOf } from "../std/checkout.ts";
import { messageOf } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { socketsCross } from "../instance/parent-socket.ts";
import type { Log } from "../std/log.ts";
import { openForOutput, writeAtomic } from "../std/owned.ts";
import { waitFor } from "../std/wait.ts";
import { askGateway, endGateway } from "../mcp/client.ts";
import { readServers } from "../mcp/config.ts";
import { endServerGroups } from "./processes.ts";
import { rotateLog } from "./server-log.ts";

/** The checkout and the environment that the gateway runs with. */
export interface Host {
  checkout: string;
  env: NodeJS.ProcessEnv;
}

/**
 * Supervises the gateway: restarts it after a crash or a failure, while the
 * `wanted` file exists. Exits if the gateway rejects its configuration (2) or
 * another gateway runs (5).
 */
const loop = `wanted=$1; shift
while [ -e "$wanted" ]; do
  "$0" "$@"
  case $? in
    0 | 2 | 5) exit ;;
    1) sleep 10 ;;
    *) sleep 1 ;;
  esac
done`;

/** Starts the gateway unless it runs, and waits until it answers. */
export async function startGateway(
  instance: Instance,
  { env }: Host,
): Promise<void> {
  const { home, owner, settings } = instance;
  readServers(home, settings); // reports configuration errors here
  const tunnels = needsTunnels(instance);
  const status = await askGateway(home, "status");
  // When it was started, it may not have been known that they are needed.
  if (status && tunnels && status.tunnels === null) await stopGateway(instance);
  writeAtomic(home.mcpWanted, "", owner);
  if (status && (!tunnels || status.tunnels !== null)) return;
  rotateLog(home.mcpLog("gateway"));
  const log = openForOutput(home.mcpLog("gateway"), "a", owner);
  const script = programOf("mcp-gateway");
  const serve = ["serve", "--while-wanted", ...(tunnels ? ["--tunnels"] : [])];
  // In its own session, so that it keeps running when the terminal closes.
  spawn("sh", ["-c", loop, script, home.mcpWanted, ...serve], {
    stdio: ["ignore", log, log],
    detached: true,
    env,
  }).unref();
  closeSync(log);
  await waitFor(() => askGateway(home, "status").catch(() => undefined), {
    for: "the MCP gateway",
    timeoutMs: 20_000,
    hint: `See ${home.mcpLog("gateway")}.`,
  });
}

/** Whether workers reach the gateway by TCP, as unix sockets do not cross. */
export function needsTunnels(
  { home, settings: { MCP_SOCKET } }: Pick<Instance, "home" | "settings">,
): boolean {
  return MCP_SOCKET === "auto"
    ? socketsCross({ home }) === false
    : MCP_SOCKET === "tcp";
}

/**
 * When the daemon starts: starts the gateway if servers are configured. A failure
 * is only logged.
 */
export async function startConfiguredGateway(
  instance: Instance,
  host: Host,
  log: Log,
): Promise<void> {
  if (instance.self || !existsSync(instance.home.mcpConfig)) return;
  try {
    await startGateway(instance, host);
  } catch (error) {
    log(`warning: ${messageOf(error)}`);
  }
}

/** Stops the gateway and its servers. Returns whether it was running. */
export async function stopGateway(
  { home }: Pick<Instance, "home">,
): Promise<boolean> {
  // First, so that the supervising loop does not restart it.
  rmSync(home.mcpWanted, { force: true });
  const ran = await endGateway(home);
  const ended = async () => !await askGateway(home, "status").catch(() => true);
  if (ran) {
    await waitFor(ended, {
      for: "the MCP gateway to end",
      timeoutMs: 20_000,
    });
  }
  await endServerGroups(home.home); // left by a killed gateway
  return ran;
}
