// The tmux server of a worker, which holds its session; and the terminals that
// show it.

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

/** What shows the session at a terminal of a worker. */
const attachCommand = [...tmux, "attach-session", "-t", "=claude"];

/**
 * The same for a terminal that is itself in a tmux: its keys are the outer one's.
 * Options are a session's, so it is another session on the same window, and goes
 * with its terminal.
 */
const nestedScript = [
  ...tmux,
  ...["new-session", "-t", "claude", "';'"],
  ...["set", "prefix", "None", "';'"],
  ...["set", "prefix2", "None", "';'"],
  ...["set", "destroy-unattached", "on"],
].join(" ");

const hasSession = `${tmux.join(" ")} has-session -t =claude 2>/dev/null`;

/** What a window of the dashboard shows: the session, else a shell. */
export const windowScript = `${hasSession} || exec bash; exec ${nestedScript}`;

/** What a terminal is to show; a session with what starts it, if it must be. */
export type Shown =
  | { what: "shell" }
  | { what: "session"; command?: string[]; env?: Record<string, string> };

/** Shows it at this terminal; gives the exit code. */
export async function showInWorker(
  docker: Docker,
  id: string,
  env: NodeJS.ProcessEnv,
  shown: Shown,
): Promise<number> {
  const nested = Boolean(env["TMUX"]);
  const command = shown.what === "shell"
    ? ["bash"]
    : showCommand(shown.command, nested);
  const passed = shown.what === "shell" ? {} : shown.env ?? {};
  return await execAtTerminal(docker, id, env, command, passed);
}

/** One command that starts what has to be started and shows it. */
function showCommand(start: string[] | undefined, nested: boolean): string[] {
  if (!start) {
    return nested ? ["sh", "-c", `exec ${nestedScript}`] : attachCommand;
  }
  if (!nested) return [...tmux, "new-session", "-A", "-s", "claude", ...start];
  const starting = `${tmux.join(" ")} new-session -d -s claude "$@"`;
  const script = `${hasSession} || ${starting} || exit; exec ${nestedScript}`;
  return ["sh", "-c", script, "sh", ...start];
}

/** Whether there is a session to show. */
export async function hasTerminal(
  docker: Docker,
  id: string,
): Promise<boolean> {
  const command = [...tmux, "has-session", "-t", "=claude"];
  return (await execIn(docker, id, command)).exitCode === 0;
}
