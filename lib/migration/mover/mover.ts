// mover: copies and checks trees of data, for migrate and rollback; what they run in
// the mover container.

import process from "node:process";
import { createInterface } from "node:readline";
import * as v from "valibot";
import { Failure, fileFailure } from "../../std/errors.ts";
import { operationSchema, perform } from "./operations.ts";
import { command, execute, runCli } from "../../cli/cli.ts";
import { Io } from "../../cli/io.ts";

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("mover");

  cli.command("", "Perform operations: on stdin, a line of JSON each")
    .action(async () => {
      const say = (line: unknown) => io.answerLine(line, "", true);
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

  return await runCli(cli, argv, io);
}

if (import.meta.main) await execute(main);
