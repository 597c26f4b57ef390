// The tmux server of a worker, which holds its session; and the terminals that
// show it.

import type { Docker } from "./docker.ts";
import { execIn } from "./exec.ts";
import { execAtTerminal } from "./terminal.ts";

export const tmux = [
  "tmux",
  "-L",
  "claude",
  "-f",
  "/etc/hal9000/session-tmux.conf",
];

/** What a terminal runs in a worker to show its session. */
const attachCommand = [...tmux, "attach-session", "-t", "=claude"];

/**
 * The same for a terminal that is itself in a tmux: its keys are the outer one's.
 * Options are a session's, so it is another session on the same window, and goes
 * with its terminal.
 */
const nestedCommand = [
  ...tmux,
  "new-session",
  "-t",
  "claude",
  ";",
  ...["set", "prefix", "None", ";"],
  ...["set", "prefix2", "None", ";"],
  ...["set", "destroy-unattached", "on"],
];

/** A shell that does what a terminal of the dashboard should: the session, else a shell. */
export const windowScript = [
  `${tmux.join(" ")} has-session -t =claude 2>/dev/null || exec bash`,
  `exec ${nestedCommand.map((word) => `'${word}'`).join(" ")}`,
].join("; ");

/** Shows a session at this terminal, or a shell beside it; gives the exit code. */
export async function attachTerminal(
  docker: Docker,
  id: string,
  env: NodeJS.ProcessEnv,
  show: "session" | "shell",
): Promise<number> {
  const session = env["TMUX"] ? nestedCommand : attachCommand;
  return await execAtTerminal(
    docker,
    id,
    env,
    show === "shell" ? ["bash"] : session,
  );
}

/** Whether there is a session to show. */
export async function hasTerminal(
  docker: Docker,
  id: string,
): Promise<boolean> {
  const command = [...tmux, "has-session", "-t", "=claude"];
  return (await execIn(docker, id, command)).exitCode === 0;
}
