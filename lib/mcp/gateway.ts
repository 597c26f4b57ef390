// The gateway: all MCP servers of the host that workers may use, in one process, and
// what is asked of it.

import process from "node:process";
import * as v from "valibot";
import { messageOf } from "../errors.ts";
import type { Log } from "../log.ts";
import { ownerOf } from "../owned.ts";
import type { HomePaths } from "../paths.ts";
import { listen } from "../pool/lines.ts";
import type { Settings } from "../settings.ts";
import { requestSchema } from "./client.ts";
import {
  expandServer,
  findCommand,
  readServers,
  type ServerConfig,
} from "./config.ts";
import { ServedMcp, type ServedOptions } from "./server.ts";
import { ServerLog } from "./server-log.ts";
import { forgetTunnels, serveTunnels } from "./tunnel.ts";

export interface GatewayOptions {
  home: HomePaths;
  settings: Pick<Settings, "CHROMADB_PORT">;
  checkout: string;
  env: NodeJS.ProcessEnv;
  /** Whether unix sockets do not reach the engine's machine. */
  tunnels: boolean;
}

/** Serves until `stop` is aborted. */
export async function serveGateway(
  { home, settings, checkout, env, tunnels: wanted }: GatewayOptions,
  stop: AbortSignal,
  log: Log,
): Promise<void> {
  const owner = ownerOf(home.home);
  const served: ServedMcp[] = [];
  for (const [name, given] of readServers(home, settings)) {
    const source = sourceOf(given, checkout, env);
    if (source.missing) log(`${name}: ${source.missing}`);
    const server = new ServedMcp({
      name,
      ...source,
      socket: home.mcpSocket(name),
      log: new ServerLog(home.mcpLog(name), owner),
    });
    await server.listen();
    void server.check();
    served.push(server);
  }
  forgetTunnels(home.mcp);
  const names = served.map(({ status }) => status.name);
  const tunnels = wanted
    ? await serveTunnels(home.mcp, names, home.mcpSocket, owner)
    : undefined;
  let end = () => {};
  const ended = new Promise<void>((resolve) => end = resolve);
  stop.addEventListener("abort", end);
  const control = await listen(home.mcpControl, (request) => {
    const { op } = v.parse(requestSchema, request);
    // The answer goes out first.
    if (op === "stop") setTimeout(end);
    const servers = served.map(({ status }) => status);
    const { pid } = process;
    return Promise.resolve({ pid, tunnels: tunnels?.port ?? null, servers });
  });
  log(`Serving ${names.join(", ")}`);
  await ended;
  await control.close();
  await tunnels?.close();
  await Promise.all(served.map((server) => server.close()));
}

/** With its command found and its variables set, or what is missing. */
function sourceOf(
  given: ServerConfig,
  checkout: string,
  env: NodeJS.ProcessEnv,
): Pick<ServedOptions, "config" | "command" | "missing"> {
  const none = { command: undefined, missing: undefined };
  try {
    const config = expandServer(given, env);
    if (config.command === undefined) return { ...none, config };
    const command = findCommand(config.command, checkout, env);
    if (command !== undefined) return { ...none, config, command };
    throw new Error(`there is no ${config.command} on the host`);
  } catch (error) {
    return { ...none, config: given, missing: messageOf(error) };
  }
}
