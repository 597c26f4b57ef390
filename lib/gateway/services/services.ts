// services: serves ChromaDB and MCP servers to workers. Runs in the parent; it opens its
// sockets as root, then becomes a user of its own that cannot reach HAL9000_HOME.

import process from "node:process";
import { serveAll } from "./serve.ts";
import { homeOf } from "../../instance/config.ts";
import { homePaths } from "../../instance/paths.ts";
import { serviceUsers } from "../../instance/service-users.ts";
import { becomeService } from "../../std/become.ts";
import { ownerOf } from "../../std/owned.ts";
import { command, execute, runCli } from "../../cli/cli.ts";
import { Io } from "../../cli/io.ts";

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("services");

  cli.command(
    "serve <chromadb> [...servers]",
    "Serve ChromaDB's port, and PORT=NAME of MCP servers, until SIGTERM",
  )
    .action(async (chromadb: string, servers: string[]) => {
      process.on("SIGTERM", () => process.exit(0));
      const home = homeOf(io.env);
      const { gid } = ownerOf(home);
      process.chdir(homePaths(home).ways);
      await serveAll({ chromadb: Number(chromadb), servers }, gid);
      // The owner's group has access to the current directory.
      becomeService({ uid: serviceUsers.ports, gid, oomScore: 950 });
      await new Promise(() => {});
    });

  return await runCli(cli, argv, io);
}

if (import.meta.main) await execute(main);
