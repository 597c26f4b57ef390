// mover: copies and verifies data for migrate and rollback. It is the mover
// container's command.

import process from "node:process";
import { createInterface } from "node:readline";
import { command, execute, runCli } from "../../cli/cli.ts";
import { Io } from "../../cli/io.ts";
import { Failure, fileFailure } from "../../std/errors.ts";
import { servedCollections } from "./collections.ts";
import { perform } from "./operations.ts";

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("mover");
  const print = (line: unknown) => io.answerLine(line, "", true);

  cli.command("", "Perform operations from stdin, one JSON object per line")
    .action(async () => {
      const lines = createInterface({ input: process.stdin });
      // The client has ended; unfinished operations end with the container.
      lines.on("close", () => process.exit());
      for await (const line of lines) {
        try {
          const result = await perform(
            JSON.parse(line),
            (files, bytes, expected = 0) =>
              print({ progress: { files, bytes, expected } }),
          );
          print({ result: result ?? null });
        } catch (error) {
          const failure = error instanceof Failure ? error : fileFailure(error);
          if (!failure) throw error;
          const { kind, message, hint } = failure;
          print({ failure: { kind, message, hint } });
        }
      }
    });

  cli.command(
    "served <port>",
    "Print the collections of the running ChromaDB",
  )
    .action(async (port: unknown) =>
      print(await servedCollections(Number(port)))
    );

  return await runCli(cli, argv, io);
}

if (import.meta.main) await execute(main);
