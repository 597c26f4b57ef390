// mcp-forwarder: forwards connections to ChromaDB and to the MCP gateway's sockets.
// It is the forwarder container's command.

import process from "node:process";
import { carryAll, waysDirectory } from "./carrier.ts";
import { askForwarder } from "../forwarder-status.ts";
import { greet } from "../greet.ts";
import { waitFor } from "../../std/wait.ts";
import { command, execute, runCli } from "../../cli/cli.ts";
import { Io } from "../../cli/io.ts";

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("mcp-forwarder");

  cli.command(
    "carry <chromadb> [...servers]",
    "Forward ChromaDB's port, and PORT=NAME of each MCP server, until SIGTERM",
  )
    .option("--relay", "Forward the relay's port, too")
    .action(async (
      chromadb: string,
      servers: string[],
      { relay = false }: { relay?: boolean },
    ) => {
      process.on("SIGTERM", () => process.exit(0));
      await carryAll({ chromadb: Number(chromadb), servers, relay });
      await new Promise(() => {});
    });

  cli.command(
    "wait <...ports>",
    "Wait until each port is served or found occupied",
  )
    .action(async (ports: string[]) => {
      const forwarderSocket = `${waysDirectory}/forwarder.sock`;
      const settled = async () => {
        const { serves, taken } = await askForwarder(forwarderSocket);
        const known = [...serves, ...taken];
        return ports.every((port) => known.includes(Number(port)));
      };
      await waitFor(() => settled().catch(() => false), {
        for: "the forwarder to listen",
        timeoutMs: 5000,
      });
    });

  cli.command(
    "greet <port>",
    "Print the name of the MCP server at a port",
  )
    .action(async (port: string) => {
      io.answer(null, await greet({ port: Number(port) }), false);
    });

  return await runCli(cli, argv, io);
}

if (import.meta.main) await execute(main);
