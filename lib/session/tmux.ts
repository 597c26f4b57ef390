// The tmux server of a worker, which runs its session, and the commands that attach a
// terminal to it.

import type { Docker } from "../docker/docker.ts";
import { execIn } from "../docker/exec.ts";
import { execAtTerminal } from "../docker/terminal.ts";

export const tmux = [
  "tmux",
  "-L",
  "claude",
  "-f",
  "/etc/hal9000/session-tmux.conf",
];

/** Attaches a terminal to the session. */
const attachCommand = [...tmux, "attach-session", "-t", "=claude"];

/**
 * Attaches a terminal that runs inside another tmux. The prefix key is disabled, so that
 * it reaches the outer tmux. Options belong to a tmux session, so this creates a second
 * one on the same window, which is destroyed when its terminal detaches.
 */
const nested = [
  ...tmux,
  ...["new-session", "-t", "claude", "';'"],
  ...["set", "prefix", "None", "';'"],
  ...["set", "prefix2", "None", "';'"],
  ...["set", "destroy-unattached", "on"],
];

/** With a line that shows the key that detaches: see docker/session-tmux.conf. */
const nestedScript = [...nested, "';'", "set", "status", "on"].join(" ");

const hasSession = `${tmux.join(" ")} has-session -t =claude 2>/dev/null`;

/** In the worker: the process that a window of the dashboard shows. */
const windowPid = "/tmp/hal9000-window";

/** Ends it: the engine does not when its terminal is closed. */
export const endWindowScript = `kill -HUP "$(cat ${windowPid})"`;

const endedNote = "Claude has ended. Resume the session on the host: " +
  "claudy attach NAME. Here is a shell:";

/**
 * Run in a window of the dashboard: attaches to the session, else opens a shell. One line,
 * because it is passed through tmux's control mode.
 */
export const windowScript = `echo $$ >${windowPid}; ${hasSession} || { ` +
  `[ ! -f "$CLAUDE_CONFIG_DIR/hal9000-ended" ] || echo "${endedNote}"; ` +
  `exec bash; }; exec ${nested.join(" ")}`;

/** What to show in a terminal. `command` starts Claude if there is no session yet. */
export type Shown =
  | { what: "shell" }
  | { what: "session"; command?: string[]; env?: Record<string, string> };

/** Shows a shell or the session in this terminal; returns the exit code. */
export async function showInWorker(
  docker: Docker,
  id: string,
  env: NodeJS.ProcessEnv,
  shown: Shown,
): Promise<number> {
  const command = shown.what === "shell"
    ? ["bash"]
    : showCommand(shown.command, Boolean(env["TMUX"]));
  const passed = shown.what === "shell" ? {} : shown.env ?? {};
  return await execAtTerminal(docker, id, {
    command,
    variables: passed,
    env,
  });
}

/** One command that starts the session if necessary, and attaches to it. */
function showCommand(
  start: string[] | undefined,
  isNested: boolean,
): string[] {
  if (!start) {
    return isNested ? ["sh", "-c", `exec ${nestedScript}`] : attachCommand;
  }
  if (!isNested) {
    return [...tmux, "new-session", "-A", "-s", "claude", ...start];
  }
  const starting = `${tmux.join(" ")} new-session -d -s claude "$@"`;
  const script = `${hasSession} || ${starting} || exit; exec ${nestedScript}`;
  return ["sh", "-c", script, "sh", ...start];
}

/** Whether the worker has a tmux session. */
export async function hasTerminal(
  docker: Docker,
  id: string,
): Promise<boolean> {
  const command = [...tmux, "has-session", "-t", "=claude"];
  return (await execIn(docker, id, command)).exitCode === 0;
}

/** Prints the text on the session's screen. */
export const screenCommand = [...tmux, "capture-pane", "-p", "-t", "=claude:"];

const screenTimeoutMs = 3000;

/** More characters than a screen has. */
const maxScreen = 64 * 1024;

/** The text on the session's screen, as the worker gives it; "" if it has no session. */
export async function screenOf(docker: Docker, id: string): Promise<string> {
  const { exitCode, output } = await execIn(docker, id, screenCommand, {
    timeoutMs: screenTimeoutMs,
  });
  return exitCode === 0 ? output.slice(-maxScreen) : "";
}
