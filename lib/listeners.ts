// Who listens at which port of the shared namespace.

import { execIn } from "./exec.ts";
import { findParent, type Instance } from "./instance.ts";
import type { Log } from "./log.ts";
import { portsEach } from "./port-range.ts";
import { readSessions } from "./session-record.ts";
import { listWorkers } from "./workers.ts";

export interface Listener {
  port: number;
  /** Loopback or every address, and what else the kernel says. */
  address: string;
  /** The container whose process it is; null for one that is none of ours. */
  container: string | null;
  session: string | null;
  process: string | null;
  /** The session that the port is set aside for, if it is another's. */
  reservedFor: string | null;
}

interface Socket {
  port: number;
  address: string;
  inode: string;
}

/** Sockets, then which process holds which: only within its own pid namespace. */
const script = `cat /proc/net/tcp /proc/net/tcp6
for fd in /proc/[0-9]*/fd/*; do
  link=$(readlink "$fd") || continue
  case $link in socket:*)
    pid=\${fd#/proc/} pid=\${pid%%/*}
    echo "holder $link $(cat /proc/$pid/comm)" ;;
  esac
done 2>/dev/null
true`;

export async function listListeners(
  instance: Instance,
  log: Log,
): Promise<Listener[]> {
  const { docker } = instance;
  const parent = instance.self ?? await findParent(instance);
  const workers = (await listWorkers(instance))
    .filter(({ state }) => state === "running");
  const containers = [
    ...(parent?.State === "running"
      ? [{ id: parent.Id, name: instance.names.parent, session: null }]
      : []),
    ...workers,
  ];
  const found = new Map<string, Listener>();
  const sessions = readSessions(instance, log);
  const reserved = (port: number) =>
    sessions.find(({ portBase }) =>
      portBase !== undefined && port >= portBase && port < portBase + portsEach
    )?.name ?? null;
  await Promise.all(containers.map(async ({ id, name, session }) => {
    const { output } = await execIn(docker, id, ["bash", "-c", script]);
    const holders = parseHolders(output);
    for (const { port, address, inode } of parseListening(output)) {
      const holder = holders.get(inode);
      const key = `${inode} ${port}`;
      if (found.has(key) && holder === undefined) continue;
      const other = reserved(port);
      found.set(key, {
        port,
        address,
        container: holder === undefined ? null : name,
        session: holder === undefined ? null : session,
        process: holder ?? null,
        reservedFor: other === session ? null : other,
      });
    }
  }));
  return [...found.values()].sort((a, b) => a.port - b.port);
}

/** Of /proc/net/tcp and tcp6, proc_net(5): those in state 0A, listening. */
export function parseListening(text: string): Socket[] {
  return text.split("\n").flatMap((line) => {
    const columns = line.trim().split(/\s+/);
    const [, local = "", , state] = columns;
    const inode = columns[9] ?? "";
    const match = /^([0-9A-F]+):([0-9A-F]{4})$/.exec(local);
    if (state !== "0A" || !match) return [];
    const [, host = "", port = ""] = match;
    return [{ port: parseInt(port, 16), address: addressName(host), inode }];
  });
}

function addressName(host: string): string {
  if (/^0+$/.test(host)) return "every address";
  const loopbacks = ["0100007F", "00000000000000000000000001000000"];
  return loopbacks.includes(host) ? "localhost" : "another address";
}

function parseHolders(text: string): Map<string, string> {
  const found = [...text.matchAll(/^holder socket:\[(\d+)\] (.*)$/gm)];
  return new Map(found.map(([, inode = "", name = ""]) => [inode, name]));
}
