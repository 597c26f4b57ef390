// look-at-processes: prints what the processes of containers hold open, as JSON. Runs in a
// helper container in the host's pid namespace.

import * as v from "valibot";
import { lookAtProcesses, lookRequestSchema } from "./processes.ts";
import { command, execute, runCli } from "../cli/cli.ts";
import { Io } from "../cli/io.ts";

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("look-at-processes");

  cli.command(
    "<request>",
    "Print the listening sockets and inotify instances of containers",
  )
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
