// mounter: attaches projects inside running workers for the pool manager, until
// SIGTERM. It is the mounter container's command.

import { mkdirSync } from "node:fs";
import process from "node:process";
import { timedLog } from "../../std/log.ts";
import { serveMounter } from "./service.ts";
import { insideMounter } from "../mounter-container.ts";
import { command, execute, runCli } from "../../cli/cli.ts";
import { Io } from "../../cli/io.ts";

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("mounter");

  cli.command("", "Run the mounter").action(async () => {
    const { env } = io;
    mkdirSync(insideMounter.scratch, { recursive: true });
    const listener = await serveMounter({
      roots: [env["HAL9000_PROJECT_ROOTS"], env["MOUNTER_HOMES"]]
        .flatMap((paths) => (paths ?? "").split(":")).filter(Boolean),
      run: env["MOUNTER_RUN"] ?? "",
    }, timedLog(io.log));
    await new Promise((resolve) => process.on("SIGTERM", resolve));
    await listener.close();
  });

  return await runCli(cli, argv, io);
}

if (import.meta.main) await execute(main);
