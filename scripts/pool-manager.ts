#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// pool-manager: manages warm workers, which spawn-worker can claim.

import process from "node:process";
import { openInstance } from "../lib/instance/open.ts";
import { timedLog } from "../lib/std/log.ts";
import { PoolManager } from "../lib/pool/manager.ts";
import { execute, runCli } from "../lib/cli/cli.ts";
import { Io } from "../lib/cli/io.ts";
import { poolCommand } from "../lib/commands/pool.ts";

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = poolCommand("hal9000-pool-manager", io);

  cli.command("serve", "Run the manager until SIGTERM; used by the parent")
    .action(async () => {
      const log = timedLog(io.log);
      const stop = new AbortController();
      process.on("SIGTERM", () => stop.abort());
      const manager = new PoolManager(await openInstance(io.env, log), log);
      await manager.run(stop.signal);
    });

  return await runCli(cli, argv, io);
}

if (import.meta.main) await execute(main);
