#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// mcp-forwarder: carries connections to the MCP gateway's sockets; what runs as the
// forwarder container.

import process from "node:process";
import { carryAll } from "../lib/mcp/carrier.ts";
import { greet } from "../lib/mcp/greet.ts";
import { command, runCli } from "./cli.ts";
import { answer } from "./output.ts";

const cli = command("mcp-forwarder");

cli.command("<...ports>", "Carry each PORT=NAME until SIGTERM")
  .action(async (ports: string[]) => {
    process.on("SIGTERM", () => process.exit(0));
    await carryAll(ports);
  });

cli.command("greet <port>", "Say what answers there, as a worker would be told")
  .action(async (port: string) => {
    answer(null, await greet({ port: Number(port) }), false);
  });

await runCli(cli);
