// The processes of MCP servers on the host: each is started with a mark in its
// environment, by which those that a killed gateway has left behind are found and ended.

import { existsSync, realpathSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";

/** HOME:PID, of the instance and of the process that the gateway started. */
const mark = "HAL9000_MCP_SERVER";

/**
 * Marks the process, and closes what it inherits: the gateway's listening sockets would
 * stay open in it, since Deno does not close them on exec (2.9). A shell other than bash
 * cannot name descriptors above 9.
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

/** Before each of the steps, from asking a process to end to ending it. */
const gracePeriodMs = 2000;

/** What to start in the place of a command, for the instance with this home. */
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
 * The process groups of servers of this instance. Those are left over where no gateway
 * runs, or none of its servers yet. None where there is no /proc (macOS).
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

/** Ends them, and all that is in their groups; gives how many there were. */
export async function endServerGroups(home: string): Promise<number> {
  let count = 0;
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    const groups = await serverGroups(home);
    count = Math.max(count, groups.length);
    for (const group of groups) killGroup(group, signal);
    const deadline = Date.now() + gracePeriodMs;
    while (Date.now() < deadline && groups.some(isThere)) await sleep(50);
  }
  return count;
}

/** Whoever has left its group, or has taken the mark along, is not ended. */
async function markedGroup(
  home: string,
  pid: string,
): Promise<number | undefined> {
  // Of the user's own processes alone; others cannot be read.
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
    // They have just ended.
  }
}

function isThere(group: number): boolean {
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
