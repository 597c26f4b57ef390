// The parent's tmux server, which shows the dashboard. This code runs in the
// parent.

import { existsSync, rmSync } from "node:fs";
import { $ } from "zx/core";
import { Failure } from "../../std/errors.ts";
import type { Instance } from "../../instance/instance.ts";
import type { Log } from "../../std/log.ts";
import { isAtLeast } from "../../std/text.ts";
import { writeAtomic } from "../../std/owned.ts";
import { waitFor } from "../../std/wait.ts";

export const dashboardTmux = ["tmux", "-L", "hal9000"] as const;

/** -D: stays the parent's child instead of becoming a daemon. */
export const serverCommand = [
  ...dashboardTmux,
  "-f",
  "/etc/hal9000/tmux-dashboard.conf",
  "-D",
] as const;

/** The tmux session with the dashboard's window. */
export const dashboardSession = "hal9000";

/** Command that shows the dashboard in a terminal of the parent. */
export const showCommand = [
  ...dashboardTmux,
  "-u",
  "attach-session",
  "-t",
  `=${dashboardSession}`,
];

/** The version that has popups, and clients without a size. */
export const minVersion = "3.2";

/** Parses the output of `tmux -V`. */
export function isNewEnough(version: string): boolean {
  return isAtLeast(version.replace(/^\D+/, ""), minVersion);
}

/** Whether the image has a recent tmux; logs the reason if not. */
export async function hasTmux(log: Log): Promise<boolean> {
  const { exitCode, stdout, stderr } = await $({
    nothrow: true,
    quiet: true,
  })`tmux -V`;
  if (exitCode === 0 && isNewEnough(stdout)) return true;
  const reason = exitCode === 0
    ? `${stdout.trim()} is older than ${minVersion}`
    : exitCode === 127
    ? "no tmux"
    : stderr.trim();
  log(`No dashboard: ${reason}`);
  return false;
}

type Home = Pick<Instance, "home" | "owner">;

export function isDashboardDesired({ home }: Pick<Instance, "home">): boolean {
  return !existsSync(home.noDashboard);
}

/** Longer than the parent takes to act on a change. */
const settleMs = 10_000;

/** Ensures that the dashboard runs, with its pane. */
export async function setUpDashboard({ home }: Home, log: Log): Promise<void> {
  if (!await hasTmux(log)) {
    throw new Failure("notFound", "tmux not found in the parent", {
      hint:
        "Only the dashboard needs it. To see the workers without it: hal9000-coordinator status",
    });
  }
  rmSync(home.noDashboard, { force: true });
  // If its pane was closed, kill the server; the parent restarts it.
  if (await stateNow() === "broken") {
    await $({ nothrow: true, quiet: true })`${dashboardTmux} kill-server`;
  }
  await waitFor(async () => await stateNow() === "ready", {
    for: "the dashboard",
    timeoutMs: settleMs,
    hint: "See logs/parent/tmux.log and dashboard.log under HAL9000_HOME.",
  });
}

/** Stops the dashboard until it is set up again. */
export async function killDashboard({ home, owner }: Home): Promise<void> {
  writeAtomic(home.noDashboard, "", owner);
  await waitFor(async () => await stateNow() === "absent", {
    for: "the dashboard to end",
    timeoutMs: settleMs,
  });
}

/** A server without sessions answers the first command and fails the second. */
const stateCommand = [
  ...dashboardTmux,
  ...["show-options", "-g", "status", ";"],
  ...["list-panes", "-a", "-F", "#{@pane}"],
];

/** Whether the server runs, and with the dashboard's pane. */
async function stateNow(): Promise<"absent" | "broken" | "ready"> {
  const { stdout } = await $({ nothrow: true, quiet: true })`${stateCommand}`;
  if (stdout === "") return "absent";
  return stdout.split("\n").includes("board") ? "ready" : "broken";
}

/** Waits for the server and its session to start. */
export async function waitForServer(): Promise<void> {
  await waitFor(async () => await stateNow() === "ready", {
    for: "tmux",
    timeoutMs: settleMs,
  });
}

/** Throws if the server does not answer, or not in time. */
export async function serverAnswers(): Promise<true> {
  await $({
    quiet: true,
    timeout: 5000,
    timeoutSignal: "SIGKILL",
  })`exec ${dashboardTmux} show-options -g status`;
  return true;
}
