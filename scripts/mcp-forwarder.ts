#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// mcp-forwarder: carries connections to the MCP gateway's sockets; what runs as the
// forwarder container.

import process from "node:process";
import { forward } from "../lib/mcp/forwarder.ts";
import { command, runCli } from "./cli.ts";

const cli = command("mcp-forwarder");

cli.command("<...ports>", "Carry each PORT=NAME until SIGTERM")
  .action(async (ports: string[]) => {
    await forward(ports);
    await new Promise((resolve) => process.on("SIGTERM", resolve));
    process.exit(0);
  });

await runCli(cli);
