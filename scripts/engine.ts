#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// engine start|stop: starts and stops the Docker engine of this machine.

import { ensureEngine, stopEngine } from "../lib/machine/engine.ts";
import { endpointOf } from "../lib/docker/endpoint.ts";
import { command, execute, runCli } from "../lib/cli/cli.ts";
import { Io } from "../lib/cli/io.ts";

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("hal9000-engine");

  cli.command(
    "start",
    "Use the running engine, or install and start one (Debian, Ubuntu)",
  ).action(async () => {
    const { version } = await ensureEngine(io.env, io.log);
    io.log(`Engine ${version} answers at ${endpointOf(io.env).host}`);
  });

  cli.command("stop", "Stop the engine, if it was started by this command")
    .action(() => stopEngine(io.log));

  return await runCli(cli, argv, io);
}

if (import.meta.main) await execute(main);
