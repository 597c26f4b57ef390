// look-at-processes: what the processes of containers hold open, as JSON; run in a
// helper container that sees the host's processes.

import * as v from "valibot";
import { lookAtProcesses, lookRequestSchema } from "./processes.ts";
import { command, execute, runCli } from "../cli/cli.ts";
import { Io } from "../cli/io.ts";

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("look-at-processes");

  cli.command("<request>", "Print who listens, and what else containers hold")
    .action((request: string) =>
      io.answer(
        lookAtProcesses(v.parse(lookRequestSchema, JSON.parse(request))),
        "",
        true,
      )
    );

  return await runCli(cli, argv, io);
}

if (import.meta.main) await execute(main);
