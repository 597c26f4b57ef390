#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// mounter: attaches projects inside running workers, for the pool manager; what
// runs as the mounter container, until SIGTERM.

import { mkdirSync } from "node:fs";
import process from "node:process";
import { logToStderr, timedLog } from "../lib/log.ts";
import { serveMounter } from "../lib/pool/mounter-service.ts";
import { insideMounter } from "../lib/pool/mounter.ts";
import { command, runCli } from "./cli.ts";

const cli = command("mounter");

cli.command("", "Run the mounter").action(async () => {
  const { env } = process;
  mkdirSync(insideMounter.scratch, { recursive: true });
  const listener = await serveMounter({
    roots: [env["HAL9000_PROJECT_ROOTS"], env["MOUNTER_HOMES"]]
      .flatMap((paths) => (paths ?? "").split(":")).filter(Boolean),
    run: env["MOUNTER_RUN"] ?? "",
  }, timedLog(logToStderr));
  await new Promise((resolve) => process.on("SIGTERM", resolve));
  await listener.close();
});

await runCli(cli);
