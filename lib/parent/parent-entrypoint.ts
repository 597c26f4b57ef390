// parent-entrypoint: the parent container's command; runs until SIGTERM.

import process from "node:process";
import { buildDigest } from "../std/build-digest.ts";
import { openInstance } from "../instance/open.ts";
import { timedLog } from "../std/log.ts";
import { runParent } from "./parent.ts";
import { command, execute, runCli } from "../cli/cli.ts";
import { Io } from "../cli/io.ts";

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("parent-entrypoint");

  cli.command("", "Run the parent: ChromaDB, tmux, background services")
    .action(async () => {
      const log = timedLog(io.log);
      const stop = new AbortController();
      process.on("SIGTERM", () => stop.abort());
      const open = () => openInstance(io.env, log);
      await runParent(open, await buildDigest(), stop.signal, log);
    });

  return await runCli(cli, argv, io);
}

if (import.meta.main) await execute(main);
