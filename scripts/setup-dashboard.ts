#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// setup-dashboard: sets up, shows or stops the parent's tmux dashboard.

import process from "node:process";
import { Board } from "../lib/parent/dashboard/board.ts";
import {
  killDashboard,
  setUpDashboard,
  waitForServer,
} from "../lib/parent/dashboard/server.ts";
import { openInstance } from "../lib/instance/open.ts";
import { timedLog } from "../lib/std/log.ts";
import { command, execute, runCli } from "../lib/cli/cli.ts";
import { Io } from "../lib/cli/io.ts";
import { dashboardInParent, showDashboard } from "../lib/commands/dashboard.ts";

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("hal9000-setup-dashboard");
  const open = () => openInstance(io.env, io.log);

  cli.command(
    "setup",
    "Set up the dashboard, or repair it",
  )
    .action(async () => {
      const instance = await open();
      if (!instance.self) {
        return io.log(await dashboardInParent(instance, "setup"));
      }
      await setUpDashboard(instance, io.log);
      io.log("Dashboard is ready. Attach to it: claudy dashboard");
    });

  cli.command("attach", "Attach to the dashboard")
    .action(async () => await showDashboard(io, await open()));

  cli.command("kill", "Stop the dashboard until the next setup")
    .action(async () => {
      const instance = await open();
      if (!instance.self) {
        return io.log(await dashboardInParent(instance, "kill"));
      }
      await killDashboard(instance);
      io.log(
        "Dashboard stopped. Start it again: hal9000-setup-dashboard setup",
      );
    });

  cli.command("serve", "Write the dashboard; run by the parent")
    .action(async () => {
      const log = timedLog(io.log);
      const stop = new AbortController();
      process.on("SIGTERM", () => stop.abort());
      const instance = await openInstance(io.env, log);
      await waitForServer();
      await new Board(instance, log).run(stop);
    });

  return await runCli(cli, argv, io);
}

if (import.meta.main) await execute(main);
