#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// pool-manager: warm workers that a spawn can claim.

import process from "node:process";
import { openInstance } from "../lib/instance/open.ts";
import { logToStderr, timedLog } from "../lib/std/log.ts";
import { PoolManager } from "../lib/pool/manager.ts";
import { command, runCli } from "../lib/cli/cli.ts";
import {
  addPoolOptions,
  checkPoolOptions,
  poolActions,
  type PoolOptions,
} from "../lib/commands/pool.ts";

const cli = command("pool-manager");

for (const [name, action] of Object.entries(poolActions)) {
  const words = [name, action.argument].filter(Boolean).join(" ");
  addPoolOptions(cli.command(words, action.meaning), action.options ?? [])
    .action(async (...given: unknown[]) => {
      const options = given.at(-1) as PoolOptions;
      const argument = given.length > 1 && given[0] !== undefined
        ? String(given[0])
        : undefined;
      checkPoolOptions(name, action, options, argument);
      await action.run(options, argument);
    });
}

cli.command("serve", "Run the manager here; the parent does that")
  .action(async () => {
    const log = timedLog(logToStderr);
    const stop = new AbortController();
    process.on("SIGTERM", () => stop.abort());
    const manager = new PoolManager(await openInstance(process.env, log), log);
    await manager.run(stop.signal);
  });

await runCli(cli);
