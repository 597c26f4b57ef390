// claudy dashboard: shows the dashboard, on the host or in the parent.

import type { CAC } from "cac";
import { showCommand } from "../parent/dashboard/server.ts";
import { runHere } from "../docker/docker-cli.ts";
import { Failure } from "../std/errors.ts";
import { execIn } from "../docker/exec.ts";
import { execAtTerminal } from "../docker/terminal.ts";
import { findParent, type Instance } from "../instance/instance.ts";
import { openInstance } from "../instance/open.ts";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import { refuseWithoutTerminal } from "../cli/options.ts";

export function dashboardCommand(io: Io): CAC {
  const cli = command("claudy dashboard");
  cli.command("", "Show all sessions, open them, answer their requests")
    .action(async () => {
      refuseWithoutTerminal(
        io,
        "Run it in a terminal. For a list instead: claudy ls",
        "Cannot show the dashboard",
      );
      return await showDashboard(io, await openInstance(io.env, io.log));
    });
  return cli;
}

/** Shows the dashboard in this terminal; returns the exit code. */
export async function showDashboard(
  io: Io,
  instance: Instance,
): Promise<number> {
  refuseWithoutTerminal(
    io,
    "Run it in a terminal. For a list instead: claudy ls",
    "Cannot show the dashboard",
  );
  if (instance.self) return await runHere(showCommand);
  const parent = await runningParent(instance);
  await dashboardInParent(instance, "setup");
  const noColour = io.env["NO_COLOR"];
  return await execAtTerminal(instance.docker, parent, {
    command: showCommand,
    variables: noColour ? { NO_COLOR: noColour } : {},
    env: io.env,
  });
}

/** Runs an action of setup-dashboard in the parent; returns its output. */
export async function dashboardInParent(
  instance: Instance,
  action: "setup" | "kill",
): Promise<string> {
  const parent = await runningParent(instance);
  const { exitCode, output } = await execIn(instance.docker, parent, [
    "/scripts/setup-dashboard",
    action,
  ], { timeoutMs: 30_000 });
  const said = output.trim();
  if (exitCode === 0) return said;
  throw new Failure("failed", said.replace(/^error: /, ""));
}

async function runningParent(instance: Instance): Promise<string> {
  const parent = await findParent(instance);
  if (parent?.State === "running") return parent.Id;
  throw new Failure("notFound", "The parent is not running", {
    hint: "Start it: claudy daemon start",
  });
}
