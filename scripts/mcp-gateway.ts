#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// mcp-gateway: serves the host's MCP servers to workers; also claudy mcp.

import { existsSync } from "node:fs";
import process from "node:process";
import { homeOf, readSettings } from "../lib/instance/config.ts";
import { timedLog } from "../lib/std/log.ts";
import { homePaths } from "../lib/instance/paths.ts";
import { checkout } from "../lib/std/checkout.ts";
import { execute, runCli } from "../lib/cli/cli.ts";
import { Io } from "../lib/cli/io.ts";
import { mcpCommand } from "../lib/commands/mcp.ts";

interface ServeOptions {
  tunnels?: boolean;
  whileWanted?: boolean;
}

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = mcpCommand("hal9000-mcp-gateway", io);

  cli.command("serve", "Run the gateway here, until SIGTERM")
    .option(
      "--tunnels",
      "Also listen on 127.0.0.1, for an engine on another machine",
    )
    .option("--while-wanted", "Exit once mcp stop has been called")
    .action(async ({ tunnels = false, whileWanted = false }: ServeOptions) => {
      const { env } = io;
      const home = homePaths(homeOf(env));
      const stop = new AbortController();
      process.on("SIGTERM", () => stop.abort());
      // Loaded only here: the SDK takes most of the start time.
      const { serveGateway } = await import("../lib/gateway/gateway.ts");
      const settings = readSettings(env);
      const log = timedLog(io.log);
      // The HTTP library logs each client that disconnects.
      console.info = () => {};
      const isWanted = () => !whileWanted || existsSync(home.mcpWanted);
      const options = { home, settings, checkout, env, tunnels, isWanted };
      await serveGateway(options, stop.signal, log);
      process.exit(0);
    });

  return await runCli(cli, argv, io);
}

if (import.meta.main) await execute(main);
