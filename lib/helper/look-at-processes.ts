// look-at-processes: what the processes of containers hold open, as JSON; run in a
// helper container that sees the host's processes.

import * as v from "valibot";
import { lookAtProcesses, lookRequestSchema } from "./processes.ts";
import { command, runCli } from "../cli/cli.ts";
import { answer } from "../cli/output.ts";

const cli = command("look-at-processes");

cli.command("<request>", "Print who listens, and what else containers hold")
  .action((request: string) =>
    answer(
      lookAtProcesses(v.parse(lookRequestSchema, JSON.parse(request))),
      "",
      true,
    )
  );

await runCli(cli);
