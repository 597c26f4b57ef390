// Marks the processes of MCP servers in their environment, to find and end those
// that a killed gateway has left behind.

import { existsSync, realpathSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";

/** Value HOME:PID: the instance's home, and the process that the gateway started. */
const mark = "HAL9000_MCP_SERVER";

/**
 * Sets the mark, and closes inherited descriptors: the gateway's listening sockets
 * would stay open in the process, since Deno does not close them on exec (2.9).
 * Shells other than bash cannot address descriptors above 9.
 */
const begin = `
if [ -n "\${BASH_VERSION-}" ]; then
  for fd in /dev/fd/*; do
    fd=\${fd##*/}
    case $fd in [012]) ;; *) eval "exec $fd>&-" ;; esac
  done
fi
export ${mark}="$1:$$"
shift
unset fd OLDPWD SHLVL _
exec "$@"`;

/** How long a process may take to end after each signal: SIGTERM, SIGKILL. */
const gracePeriodMs = 2000;

/** Wraps a command so that its process carries the mark of this instance. */
export function marked(
  home: string,
  command: string,
  args: string[],
): [command: string, args: string[]] {
  const shell = existsSync("/bin/bash") ? "/bin/bash" : "/bin/sh";
  const words = [realPath(home), command, ...args];
  return [shell, ["-c", begin, "mcp-server", ...words]];
}

/**
 * Process groups of this instance's servers. Before a gateway has started servers,
 * these are leftovers. Empty if there is no /proc (macOS).
 */
export async function serverGroups(home: string): Promise<number[]> {
  const pids = await readdir("/proc").catch(() => []);
  const groups = new Set<number>();
  for (const pid of pids) {
    if (!/^\d+$/.test(pid)) continue;
    const group = await markedGroup(home, pid).catch(() => undefined);
    if (group !== undefined) groups.add(group);
  }
  return [...groups];
}

/** Ends these groups. Returns their number. */
export async function endServerGroups(home: string): Promise<number> {
  let count = 0;
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    const groups = await serverGroups(home);
    count = Math.max(count, groups.length);
    for (const group of groups) killGroup(group, signal);
    const deadline = Date.now() + gracePeriodMs;
    while (Date.now() < deadline && groups.some(isAlive)) await sleep(50);
  }
  return count;
}

/** Ignores processes that have left their group or only inherited the mark. */
async function markedGroup(
  home: string,
  pid: string,
): Promise<number | undefined> {
  // Only the user's own processes are readable.
  const variables = (await readFile(`/proc/${pid}/environ`, "utf8")).split(
    "\0",
  );
  const prefix = `${mark}=${realPath(home)}:`;
  const found = variables.find((variable) => variable.startsWith(prefix));
  if (found === undefined) return undefined;
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  // PID (NAME) STATE PARENT GROUP: proc_pid_stat(5)
  const group = stat.slice(stat.lastIndexOf(")")).split(" ")[3];
  return group === found.slice(prefix.length) ? Number(group) : undefined;
}

export function killGroup(group: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-group, signal);
  } catch {
    // The group has just ended.
  }
}

function isAlive(group: number): boolean {
  try {
    return process.kill(-group, 0);
  } catch {
    return false;
  }
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}
