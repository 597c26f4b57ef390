// Lists what the processes of containers hold open, from the host's /proc, so that no
// program of a worker is involved. Runs in a helper container, see helper.ts.

import {
  closeSync,
  openSync,
  readFileSync,
  readlinkSync,
  readSync,
  statSync,
} from "node:fs";
import process from "node:process";
import * as v from "valibot";
import { namesIn } from "../std/names-in.ts";

export const lookRequestSchema = v.object({
  /** A process in the network namespace whose listening sockets are listed. */
  netPid: v.nullable(v.pipe(v.number(), v.integer(), v.minValue(1))),
  containers: v.array(v.object({
    id: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
    /** Its first process. */
    pid: v.pipe(v.number(), v.integer(), v.minValue(1)),
    /** Whether it has a network namespace of its own, whose sockets are listed, too. */
    isolated: v.boolean(),
  })),
});

export type LookRequest = v.InferOutput<typeof lookRequestSchema>;

const heldSchema = v.object({
  id: v.string(),
  /** The uid of its first process. */
  uid: v.nullable(v.number()),
  /** Number of inotify descriptors; an inherited one counts again. */
  inotify: v.number(),
  /** Whether a limit was reached before everything was inspected. */
  incomplete: v.boolean(),
});

export const lookSchema = v.object({
  listening: v.array(v.object({
    port: v.number(),
    address: v.string(),
    /** The isolated container that has it in its namespace; null for the shared one. */
    network: v.nullable(v.string()),
    /** The container of the process; null if it is none of these. */
    container: v.nullable(v.string()),
    process: v.nullable(v.string()),
  })),
  containers: v.array(heldSchema),
  /** The limit of inotify instances per user on this machine. */
  inotifyLimit: v.number(),
});

export type Look = v.InferOutput<typeof lookSchema>;

/** Limits per container, so that one with many descriptors does not delay the others. */
const maxFiles = 10_000;
const maxCpuMs = 300;

/** CPU time of this process; wall time would include other processes on a busy machine. */
function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

export function lookAtProcesses(
  { netPid, containers }: LookRequest,
  proc = "/proc",
): Look {
  const sockets = new Map<string, Look["listening"][number]>();
  const namespaces = [
    ...(netPid === null ? [] : [{ pid: netPid, network: null }]),
    ...containers.filter(({ isolated }) => isolated)
      .map(({ id, pid }) => ({ pid, network: id })),
  ];
  const listening = namespaces.flatMap(({ pid, network }) =>
    ["tcp", "tcp6"].flatMap((table) =>
      parseListening(readListening(`${proc}/${pid}/net/${table}`))
    ).map(({ port, address, inode }) => {
      const socket = { port, address, network, container: null, process: null };
      sockets.set(`socket:[${inode}]`, socket);
      return socket;
    })
  );
  const pids = processesOf(containers, proc);
  const held = containers.map(({ id }) =>
    lookAtContainer(id, pids.get(id) ?? [], sockets, proc)
  );
  for (const { id } of containers) {
    const lost = listening.some(({ container }) => container === null);
    if (lost) lookAtThreads(id, pids.get(id) ?? [], sockets, proc);
  }
  return {
    listening,
    containers: held,
    inotifyLimit: Number(
      read(`${proc}/sys/fs/inotify/max_user_instances`) || "0",
    ),
  };
}

function lookAtContainer(
  id: string,
  pids: string[],
  sockets: Map<string, Look["listening"][number]>,
  proc: string,
): v.InferOutput<typeof heldSchema> {
  const deadline = cpuMs() + maxCpuMs;
  let uid: number | null = null;
  let inotify = 0;
  let files = 0;
  let incomplete = false;
  for (const pid of pids) {
    const status = read(`${proc}/${pid}/status`);
    uid ??= Number(/^Uid:\s+(\d+)/m.exec(status)?.[1] ?? 0);
    const name = /^Name:\t(.*)$/m.exec(status)?.[1] ?? "";
    if (files + openFiles(`${proc}/${pid}/fd`) > maxFiles) {
      incomplete = true;
      continue;
    }
    for (const fd of namesIn(`${proc}/${pid}/fd`)) {
      if (++files > maxFiles || (files % 1000 === 0 && cpuMs() > deadline)) {
        incomplete = true;
        break;
      }
      const target = link(`${proc}/${pid}/fd/${fd}`);
      if (target === "anon_inode:inotify") inotify++;
      const socket = sockets.get(target);
      // The first process that has the socket; later ones have inherited it.
      if (socket?.container === null) {
        socket.container = id;
        socket.process = name;
      }
    }
    if (cpuMs() > deadline) {
      incomplete ||= pid !== pids.at(-1);
      break;
    }
  }
  return { id, uid, inotify, incomplete };
}

/** Inspects threads: without CLONE_FILES, clone(2), they have their own descriptors. */
function lookAtThreads(
  id: string,
  pids: string[],
  sockets: Map<string, Look["listening"][number]>,
  proc: string,
): void {
  const deadline = cpuMs() + maxCpuMs;
  let files = 0;
  for (const pid of pids) {
    for (const thread of namesIn(`${proc}/${pid}/task`)) {
      const own = `${proc}/${pid}/task/${thread}`;
      if (cpuMs() > deadline) return;
      if (thread === pid || openFiles(`${own}/fd`) > maxFiles) continue;
      for (const fd of namesIn(`${own}/fd`)) {
        if (++files % 100 === 0 && cpuMs() > deadline) return;
        const socket = sockets.get(link(`${own}/fd/${fd}`));
        if (socket?.container !== null) continue;
        socket.container = id;
        const name = /^Name:\t(.*)$/m.exec(read(`${own}/status`));
        socket.process = name?.[1] ?? "";
      }
    }
  }
}

/** The number of open files. Linux 6.2 and later report it as st_size; others 0. */
function openFiles(directory: string): number {
  try {
    return statSync(directory).size;
  } catch {
    return 0;
  }
}

/**
 * The pids of each container in ascending order, found by pid namespace: each container has
 * its own, also on an engine without cgroups.
 */
function processesOf(
  containers: LookRequest["containers"],
  proc: string,
): Map<string, string[]> {
  const namespaceOf = (pid: number | string) => link(`${proc}/${pid}/ns/pid`);
  const found = new Map<string, string[]>();
  const byNamespace = new Map<string, string[]>();
  for (const { id, pid } of containers) {
    const pids: string[] = [];
    found.set(id, pids);
    byNamespace.set(namespaceOf(pid), pids);
  }
  byNamespace.delete(""); // of a container that has ended
  for (const pid of namesIn(proc)) {
    if (!/^\d+$/.test(pid)) continue;
    byNamespace.get(namespaceOf(pid))?.push(pid);
  }
  for (const pids of found.values()) pids.sort((a, b) => Number(a) - Number(b));
  return found;
}

interface Socket {
  port: number;
  address: string;
  inode: string;
}

/** Listening sockets (state 0A) in /proc/net/tcp or tcp6, see proc_net(5). */
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

const maxTableBytes = 4 * 1024 ** 2;

/** Reads only the beginning: listening sockets come first, and others may be many. */
function readListening(path: string): string {
  let text = "";
  try {
    const file = openSync(path, "r");
    const chunk = new Uint8Array(64 * 1024);
    try {
      for (let bytes; (bytes = readSync(file, chunk)) > 0;) {
        text += new TextDecoder().decode(chunk.subarray(0, bytes));
        const [, , , last] = text.trimEnd().split("\n").at(-1)?.trim()
          .split(/\s+/) ?? [];
        if (last !== "0A" || text.length > maxTableBytes) break;
      }
    } finally {
      closeSync(file);
    }
  } catch {
    // the process has exited, or the kernel has no IPv6
  }
  return text;
}

// A process may exit at any time; errors are then ignored.

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function link(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}
