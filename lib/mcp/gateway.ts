// The gateway: all MCP servers of the host that workers may use, in one process, and
// what is asked of it.

import process from "node:process";
import * as v from "valibot";
import type { Log } from "../log.ts";
import type { HomePaths } from "../paths.ts";
import { listen } from "../pool/lines.ts";
import type { Settings } from "../settings.ts";
import { requestSchema } from "./client.ts";
import { findCommand, readServers } from "./config.ts";
import { ServedMcp } from "./server.ts";

export interface GatewayOptions {
  home: HomePaths;
  settings: Pick<Settings, "CHROMADB_PORT">;
  checkout: string;
  env: NodeJS.ProcessEnv;
}

/** Serves until `stop` is aborted. */
export async function serveGateway(
  { home, settings, checkout, env }: GatewayOptions,
  stop: AbortSignal,
  log: Log,
): Promise<void> {
  const served: ServedMcp[] = [];
  for (const [name, config] of readServers(home, settings)) {
    const command = config.command === undefined
      ? undefined
      : findCommand(config.command, checkout, env);
    if (config.command !== undefined && command === undefined) {
      log(`${name}: there is no ${config.command}`);
    }
    const server = new ServedMcp({
      name,
      config,
      command,
      socket: home.mcpSocket(name),
      log: home.mcpLog(name),
    });
    await server.listen();
    served.push(server);
  }
  let end = () => {};
  const ended = new Promise<void>((resolve) => end = resolve);
  stop.addEventListener("abort", end);
  const control = await listen(home.mcpControl, (request) => {
    const { op } = v.parse(requestSchema, request);
    // The answer goes out first.
    if (op === "stop") setTimeout(end);
    const servers = served.map(({ status }) => status);
    return Promise.resolve({ pid: process.pid, servers });
  });
  log(`Serving ${served.map(({ status }) => status.name).join(", ")}`);
  await ended;
  await control.close();
  await Promise.all(served.map((server) => server.close()));
}
