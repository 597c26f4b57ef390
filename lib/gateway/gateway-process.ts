// The gateway's process on the host: started so that it outlives the terminal, and
// ended.

import { spawn } from "node:child_process";
import { closeSync, existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { messageOf } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { openForOutput, writeAtomic } from "../std/owned.ts";
import { waitFor } from "../std/wait.ts";
import { askGateway, endGateway } from "../mcp/client.ts";
import { readServers } from "../mcp/config.ts";
import { endServerGroups } from "./processes.ts";
import { turnLog } from "./server-log.ts";

/** Where the gateway's script is, and what it runs with. */
export interface Host {
  checkout: string;
  env: NodeJS.ProcessEnv;
}

/**
 * What keeps the gateway: it is started again where it was killed or has failed, while
 * it is wanted, and not where it refuses (2) or another runs (5).
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

/** Starts it unless it runs, and waits until it answers. */
export async function startGateway(
  instance: Instance,
  { checkout, env }: Host,
): Promise<void> {
  const { home, owner, settings } = instance;
  readServers(home, settings); // its faults are told here
  writeAtomic(home.mcpWanted, "", owner);
  if (await askGateway(home, "status")) return;
  turnLog(home.mcpLog("gateway"));
  const log = openForOutput(home.mcpLog("gateway"), "a", owner);
  const script = join(checkout, "scripts", "mcp-gateway.ts");
  const tunnels = await needsTunnels(instance) ? ["--tunnels"] : [];
  const serve = ["serve", "--while-wanted", ...tunnels];
  // Out of this terminal's session, so that it stays when that closes.
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

/** Whether the engine's machine is another, which no unix socket reaches. */
async function needsTunnels(
  { docker, settings }: Pick<Instance, "docker" | "settings">,
): Promise<boolean> {
  const { MCP_SOCKET } = settings;
  if (MCP_SOCKET !== "auto") return MCP_SOCKET === "tcp";
  const { OperatingSystem } = await docker.info();
  return OperatingSystem === "Docker Desktop";
}

/** With a daemon: where servers are configured. Sessions do without, too. */
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

/** Ends it and its servers; gives whether one ran. */
export async function stopGateway(
  { home }: Pick<Instance, "home">,
): Promise<boolean> {
  // One that has just been killed does not come back.
  rmSync(home.mcpWanted, { force: true });
  const ran = await endGateway(home);
  const ended = async () => !await askGateway(home, "status").catch(() => true);
  if (ran) {
    await waitFor(ended, {
      for: "the MCP gateway to end",
      timeoutMs: 20_000,
    });
  }
  await endServerGroups(home.home); // of one that was killed
  return ran;
}
