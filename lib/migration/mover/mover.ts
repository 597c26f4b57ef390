// mover: copies and checks trees of data, for migrate and rollback; what they run in
// the mover container.

import process from "node:process";
import { createInterface } from "node:readline";
import * as v from "valibot";
import { Failure, fileFailure } from "../../std/errors.ts";
import { operationSchema, perform } from "./operations.ts";
import { command, runCli } from "../../cli/cli.ts";
import { answerLine } from "../../cli/output.ts";

const cli = command("mover");

cli.command("", "Perform operations: on stdin, a line of JSON each")
  .action(async () => {
    for await (const line of createInterface({ input: process.stdin })) {
      try {
        const result = await perform(
          v.parse(operationSchema, JSON.parse(line)),
          (files, bytes) => say({ progress: { files, bytes } }),
        );
        say({ result: result ?? null });
      } catch (error) {
        const failure = error instanceof Failure ? error : fileFailure(error);
        if (!failure) throw error;
        const { kind, message, hint } = failure;
        say({ failure: { kind, message, hint } });
      }
    }
  });

await runCli(cli);

function say(line: unknown): void {
  answerLine(line, "", true);
}
