#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// parent-entrypoint: what runs as the parent container, until SIGTERM.

import process from "node:process";
import { buildDigest } from "../lib/build-digest.ts";
import { checkout } from "../lib/checkout.ts";
import { openInstance } from "../lib/instance.ts";
import { logToStderr, timedLog } from "../lib/log.ts";
import { runParent } from "../lib/parent.ts";
import { command, runCli } from "./cli.ts";

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
