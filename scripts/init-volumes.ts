#!/usr/bin/env -S sh -c 'exec "$(dirname "$(readlink -f "$0")")"/launch "$0" "$@"'
// init-volumes: HAL9000_HOME's directories and the instance's volumes.

import process from "node:process";
import { openInstance } from "../lib/instance.ts";
import { logToStderr } from "../lib/log.ts";
import { ensureStorage } from "../lib/volumes.ts";
import { answer, command, runCli } from "./cli.ts";

const cli = command("init-volumes");

cli.command("", "Make the directories and volumes that are missing")
  .option("--json", "Print home and volumes as JSON")
  .action(async (options) => {
    const instance = await openInstance(process.env, logToStderr);
    const volumes = await ensureStorage(instance);
    const home = instance.home.home;
    answer(
      { home, volumes },
      [home, ...volumes.map(({ name }) => name)].join("\n"),
      options.json,
    );
  });

await runCli(cli);
