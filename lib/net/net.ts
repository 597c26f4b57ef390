// net: keeps workers from the host, and reserves the ports of services in their
// namespace, until SIGTERM. It is the net container's command.

import { existsSync } from "node:fs";
import process from "node:process";
import { holderSocket, serveHolder } from "./held-ports.ts";
import { lookAtFilter, setFilter } from "./host-filter.ts";
import { serviceUsers } from "../instance/service-users.ts";
import { Client } from "../std/socket-lines.ts";
import { waitFor } from "../std/wait.ts";
import { command, execute, runCli } from "../cli/cli.ts";
import { Io } from "../cli/io.ts";

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("net");

  cli.command(
    "hold [...ports]",
    "Hold these ports until SIGTERM; as root, keep workers from the host first",
  )
    .action(async (ports: string[]) => {
      process.on("SIGTERM", () => process.exit(0));
      if (process.getuid?.() === 0) await refuseHost(io);
      await serveHolder(ports.map(Number));
      await new Promise(() => {});
    });

  cli.command("set [...ports]", "Hold exactly these ports")
    .action(async (ports: string[]) => {
      // The container may have started just now.
      await waitFor(() => existsSync(holderSocket), {
        for: "the holder of the ports",
        timeoutMs: 5000,
      });
      const holder = new Client(holderSocket);
      const report = await holder.ask({ ports: ports.map(Number) }, 5000);
      holder.close();
      io.answer(report, JSON.stringify(report), true);
    });

  cli.command("look", "Print why workers can reach the host, or null")
    .action(async () => {
      const fault = await lookAtFilter() ?? null;
      io.answer({ fault }, JSON.stringify({ fault }), true);
    });

  return await runCli(cli, argv, io);
}

/** Sets the filter, and gives up the rights to change it. */
async function refuseHost(io: Io): Promise<void> {
  const fault = await setFilter();
  if (fault !== undefined) {
    io.log(`warning: workers can reach the host: ${fault}`);
  }
  process.setgid?.(serviceUsers.ports);
  process.setuid?.(serviceUsers.ports);
}

if (import.meta.main) await execute(main);
