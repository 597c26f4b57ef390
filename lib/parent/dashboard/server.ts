// The parent's tmux server, which holds the dashboard: whether it is wanted, and
// whether it is there. All of this runs in the parent.

import { execFile } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { promisify } from "node:util";
import { Failure, messageOf } from "../../std/errors.ts";
import type { Instance } from "../../instance/instance.ts";
import type { Log } from "../../std/log.ts";
import { writeAtomic } from "../../std/owned.ts";
import { waitFor } from "../../std/wait.ts";

const run = promisify(execFile);

export const dashboardTmux = ["tmux", "-L", "hal9000"] as const;

/** -D: stays the parent's child instead of becoming a daemon. */
export const serverCommand = [
  ...dashboardTmux,
  "-f",
  "/etc/hal9000/tmux-dashboard.conf",
  "-D",
] as const;

/** The session with the dashboard's window. */
export const dashboardSession = "hal9000";

/** What a terminal in the parent runs to show it. */
export const showCommand = [
  ...dashboardTmux,
  "-u",
  "attach-session",
  "-t",
  `=${dashboardSession}`,
];

/** That of the popups, and of clients without a size. */
export const minVersion = 3.2;

/** Of what `tmux -V` prints. */
export function isNewEnough(version: string): boolean {
  return Number.parseFloat(version.replace(/^\D+/, "")) >= minVersion;
}

/** Whether the image has a tmux that is new enough; told to `log` if not. */
export async function hasTmux(log: Log): Promise<boolean> {
  try {
    const { stdout } = await run("tmux", ["-V"]);
    if (isNewEnough(stdout)) return true;
    log(`No dashboard: ${stdout.trim()} is older than ${minVersion}`);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    log(`No dashboard: ${code === "ENOENT" ? "no tmux" : messageOf(error)}`);
  }
  return false;
}

type Home = Pick<Instance, "home" | "owner">;

export function isDashboardDesired({ home }: Pick<Instance, "home">): boolean {
  return !existsSync(home.noDashboard);
}

/** Longer than the parent takes to act on a change. */
const settleMs = 10_000;

/** Sees to it that the dashboard is there, whole. */
export async function setUpDashboard({ home }: Home, log: Log): Promise<void> {
  if (!await hasTmux(log)) {
    throw new Failure("notFound", "There is no tmux in the parent", {
      hint: "All else works without it: see coordinator status.",
    });
  }
  rmSync(home.noDashboard, { force: true });
  const panes = await panesNow();
  // One that lost a pane is begun again; the parent starts it.
  if (panes > 0 && panes < written) await tmux("kill-server");
  await waitFor(async () => await panesNow() === written, {
    for: "the dashboard",
    timeoutMs: settleMs,
    hint: "See logs/parent/tmux.log and dashboard.log under HAL9000_HOME.",
  });
}

/** Ends it until it is set up again. */
export async function killDashboard({ home, owner }: Home): Promise<void> {
  writeAtomic(home.noDashboard, "", owner);
  await waitFor(async () => await panesNow() === 0, {
    for: "the dashboard to end",
    timeoutMs: settleMs,
  });
}

/** The panes that are written by us. */
const written = 3;

async function panesNow(): Promise<number> {
  const target = `=${dashboardSession}:`;
  const panes = await tmux("list-panes", "-s", "-t", target, "-F", "#{@pane}");
  return panes.split("\n").filter((name) => name !== "").length;
}

/** Waits for the server and its session, as when both are being started. */
export async function untilServed(): Promise<void> {
  await waitFor(async () => await panesNow() > 0, {
    for: "tmux",
    timeoutMs: settleMs,
  });
}

/** Whether the server lives: one that hangs answers no client. */
export async function serverAnswers(): Promise<boolean> {
  const [file, ...common] = dashboardTmux;
  const words = [...common, "show-options", "-g", "status"];
  await run(file, words, { timeout: 5000, killSignal: "SIGKILL" });
  return true;
}

/** What a command of tmux prints; "" where no server answers. */
async function tmux(...args: string[]): Promise<string> {
  const [file, ...common] = dashboardTmux;
  try {
    return (await run(file, [...common, ...args])).stdout;
  } catch {
    return "";
  }
}
