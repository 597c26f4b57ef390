// healthcheck: checks that the parent can reach the engine, and workers ChromaDB.
// Docker and claudy doctor run it in the parent.

import { chromadbFault } from "./chromadb.ts";
import { readSettings } from "../instance/config.ts";
import { homeOf } from "../instance/config.ts";
import { connect } from "../docker/connection.ts";
import { Failure } from "../std/errors.ts";
import { homePaths } from "../instance/paths.ts";
import { command, execute, runCli } from "../cli/cli.ts";
import { Io } from "../cli/io.ts";

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("healthcheck");

  cli.command("", "Fail if the engine or ChromaDB does not answer")
    .action(async () => {
      const { env } = io;
      const settings = readSettings(env, { warn: () => {} });
      const home = homePaths(homeOf(env));
      await (await connect(env)).ping();
      const fault = await chromadbFault({ home, settings });
      if (fault === undefined) return;
      throw new Failure("failed", `ChromaDB does not answer workers: ${fault}`);
    });

  return await runCli(cli, argv, io);
}

if (import.meta.main) await execute(main);
