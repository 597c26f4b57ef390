#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// up: sets up this machine and starts a worker on a project; also claudy up.

import { execute, runCli } from "../lib/cli/cli.ts";
import { Io } from "../lib/cli/io.ts";
import { upCommand } from "../lib/commands/up.ts";

export async function main(argv: string[], io = new Io()): Promise<number> {
  return await runCli(upCommand("up", io), argv, io);
}

if (import.meta.main) await execute(main);
