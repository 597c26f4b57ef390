#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// setup-dashboard: sets the parent's tmux dashboard up, shows it, or ends it.

import process from "node:process";
import { Board } from "../lib/parent/dashboard/board.ts";
import {
  killDashboard,
  setUpDashboard,
  untilServed,
} from "../lib/parent/dashboard/server.ts";
import { openInstance } from "../lib/instance/open.ts";
import { logToStderr, timedLog } from "../lib/std/log.ts";
import { command, runCli } from "../lib/cli/cli.ts";
import { dashboardInParent, showDashboard } from "../lib/commands/dashboard.ts";

const cli = command("setup-dashboard");
const open = () => openInstance(process.env, logToStderr);

cli.command("setup", "Set the dashboard up; whole again where a pane was lost")
  .action(async () => {
    const instance = await open();
    if (!instance.self) {
      return logToStderr(await dashboardInParent(instance, "setup"));
    }
    await setUpDashboard(instance, logToStderr);
    logToStderr("The dashboard is set up; see it: setup-dashboard attach");
  });

cli.command("attach", "Show the dashboard at this terminal")
  .action(async () => await showDashboard(await open(), process.env));

cli.command("kill", "End the dashboard until it is set up again")
  .action(async () => {
    const instance = await open();
    if (!instance.self) {
      return logToStderr(await dashboardInParent(instance, "kill"));
    }
    await killDashboard(instance);
    logToStderr("The dashboard has ended; again: setup-dashboard setup");
  });

cli.command("serve", "Write the dashboard; run by the parent")
  .action(async () => {
    const log = timedLog(logToStderr);
    const stop = new AbortController();
    process.on("SIGTERM", () => stop.abort());
    const instance = await openInstance(process.env, log);
    await untilServed();
    await new Board(instance, log).run(stop);
  });

await runCli(cli);
