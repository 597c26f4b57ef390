// A command in a container, at this terminal.

import type { Docker } from "./docker.ts";
import { runDocker } from "./docker-cli.ts";
import { execIn } from "./exec.ts";

/** Runs it to its end, or to the end of the terminal; gives docker's exit code. */
export async function execAtTerminal(
  docker: Docker,
  id: string,
  env: NodeJS.ProcessEnv,
  command: readonly string[],
  variables: Record<string, string> = {},
): Promise<number> {
  const terminal = env["TERM"] ?? "";
  // Others are unknown to the container's programs.
  const known = /^(xterm|tmux|screen|linux|vt100)/.test(terminal);
  // A name by which it can be ended: docker leaves it running where the terminal
  // is closed.
  const client = crypto.randomUUID();
  return await runDocker([
    "exec",
    "--interactive",
    "--tty",
    `--env=TERM=${known ? terminal : "xterm-256color"}`,
    // By name alone: a URL may hold a password, and arguments are seen by all.
    ...Object.keys(variables).map((name) => `--env=${name}`),
    id,
    ...["sh", "-c", `echo $$ >"/tmp/$0"; exec "$@"`, client],
    ...command,
  ], { afterwards: () => endClient(docker, id, client), env: variables });
}

async function endClient(
  docker: Docker,
  id: string,
  client: string,
): Promise<void> {
  const script = 'kill -HUP "$(cat "/tmp/$0")"; rm -f "/tmp/$0"';
  await execIn(docker, id, ["sh", "-c", script, client]).catch(() => {
    // The container has ended, and the client with it.
  });
}
