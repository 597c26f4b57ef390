// The gateway's process on the host: started so that it outlives the terminal, and
// ended.

import { spawn } from "node:child_process";
import { closeSync, existsSync } from "node:fs";
import { join } from "node:path";
import { messageOf } from "../errors.ts";
import type { Instance } from "../instance.ts";
import type { Log } from "../log.ts";
import { openForOutput } from "../owned.ts";
import { waitFor } from "../wait.ts";
import { askGateway } from "./client.ts";
import { readServers } from "./config.ts";

/** Where the gateway's script is, and what it runs with. */
export interface Host {
  checkout: string;
  env: NodeJS.ProcessEnv;
}

/** Starts it unless it runs, and waits until it answers. */
export async function startGateway(
  instance: Instance,
  { checkout, env }: Host,
): Promise<void> {
  const { home, owner, settings } = instance;
  readServers(home, settings); // its faults are told here
  if (await askGateway(home, "status")) return;
  const log = openForOutput(home.mcpLog("gateway"), "a", owner);
  const script = join(checkout, "scripts", "mcp-gateway.ts");
  // Out of this terminal's session, so that it stays when that closes; and again
  // where it was killed.
  const loop = 'until "$0" "$@"; [ $? -lt 128 ]; do sleep 1; done';
  const serve = ["serve", ...await needsTunnels(instance) ? ["--tunnels"] : []];
  spawn("setsid", ["--fork", "sh", "-c", loop, script, ...serve], {
    stdio: ["ignore", log, log],
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

/** Ends it and its servers; none there is as good. */
export async function stopGateway(
  { home }: Pick<Instance, "home">,
): Promise<void> {
  if (!await askGateway(home, "stop")) return;
  await waitFor(
    async () => !await askGateway(home, "status").catch(() => true),
    { for: "the MCP gateway to end", timeoutMs: 10_000 },
  );
}
