// parent-entrypoint: what runs as the parent container, until SIGTERM.

import process from "node:process";
import { buildDigest } from "../std/build-digest.ts";
import { checkout } from "../std/checkout.ts";
import { openInstance } from "../instance/open.ts";
import { logToStderr, timedLog } from "../std/log.ts";
import { runParent } from "./parent.ts";
import { command, runCli } from "../cli/cli.ts";

const cli = command("parent-entrypoint");

cli.command("", "Run the parent: ChromaDB, tmux, background services")
  .action(async () => {
    const log = timedLog(logToStderr);
    const stop = new AbortController();
    process.on("SIGTERM", () => stop.abort());
    const open = () => openInstance(process.env, log);
    await runParent(open, buildDigest(checkout), stop.signal, log);
  });

await runCli(cli);
