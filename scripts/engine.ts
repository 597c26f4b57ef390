#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// engine start|stop: the Docker engine of this machine.

import process from "node:process";
import { ensureEngine, stopEngine } from "../lib/machine/engine.ts";
import { logToStderr } from "../lib/std/log.ts";
import { command, runCli } from "../lib/cli/cli.ts";

const cli = command("engine");

cli.command(
  "start",
  "Use the engine that answers; else install and start one (Debian, Ubuntu)",
).action(() => ensureEngine(process.env, logToStderr));

cli.command("stop", "Stop the engine, if it was started by this command")
  .action(() => stopEngine(logToStderr));

await runCli(cli);
