// nsenter: mounts projects into warm workers, and opens services in workers' networks,
// until SIGTERM. It is the nsenter container's command.

import { mkdirSync } from "node:fs";
import process from "node:process";
import { timedLog } from "../../std/log.ts";
import { serveNsenter } from "./service.ts";
import { insideNsenter } from "../container.ts";
import { command, execute, runCli } from "../../cli/cli.ts";
import { Io } from "../../cli/io.ts";

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("nsenter");

  cli.command("", "Run nsenter").action(async () => {
    const { env } = io;
    mkdirSync(insideNsenter.scratch, { recursive: true });
    const listener = await serveNsenter({
      roots: [env["HAL9000_PROJECT_ROOTS"], env["NSENTER_SOURCES"]]
        .flatMap((paths) => (paths ?? "").split(":")).filter(Boolean),
      run: env["NSENTER_RUN"] ?? "",
    }, timedLog(io.log));
    await new Promise((resolve) => process.on("SIGTERM", resolve));
    await listener.close();
  });

  return await runCli(cli, argv, io);
}

if (import.meta.main) await execute(main);
