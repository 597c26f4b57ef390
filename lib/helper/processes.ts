// What the processes of containers hold open, read from /proc of the host: no program
// of a worker is asked. Runs in a helper container, see helper.ts.

import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  statSync,
} from "node:fs";
import process from "node:process";
import * as v from "valibot";

export const lookRequestSchema = v.object({
  /** A process in the network namespace whose sockets are looked at. */
  netPid: v.nullable(v.pipe(v.number(), v.integer(), v.minValue(1))),
  /** Ids. */
  containers: v.array(v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))),
});

export type LookRequest = v.InferOutput<typeof lookRequestSchema>;

const heldSchema = v.object({
  id: v.string(),
  /** What its first process runs as. */
  uid: v.nullable(v.number()),
  /** Descriptors of inotify instances; one that is inherited counts twice. */
  inotify: v.number(),
  /** Whether it holds more than was looked at. */
  incomplete: v.boolean(),
});

export const lookSchema = v.object({
  listening: v.array(v.object({
    port: v.number(),
    address: v.string(),
    /** Whose process it is; null for none of the containers. */
    container: v.nullable(v.string()),
    process: v.nullable(v.string()),
  })),
  containers: v.array(heldSchema),
  /** Of one user on this machine. */
  inotifyLimit: v.number(),
});

export type Look = v.InferOutput<typeof lookSchema>;

/** For each container, so that one that holds very much hides no other. */
const maxFiles = 10_000;
const maxCpuMs = 300;

/** Of this process: on a busy machine the clock would tell of others' work. */
function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

export function lookAtProcesses(
  { netPid, containers }: LookRequest,
  proc = "/proc",
): Look {
  const sockets = new Map<string, Look["listening"][number]>();
  const listening = (netPid === null ? [] : ["tcp", "tcp6"]).flatMap((table) =>
    parseListening(readListening(`${proc}/${netPid}/net/${table}`))
  ).map(({ port, address, inode }) => {
    const socket = { port, address, container: null, process: null };
    sockets.set(`socket:[${inode}]`, socket);
    return socket;
  });
  const pids = processesOf(containers, proc);
  const held = containers.map((id) =>
    lookAtContainer(id, pids.get(id) ?? [], sockets, proc)
  );
  for (const id of containers) {
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
    for (const fd of list(`${proc}/${pid}/fd`)) {
      if (++files > maxFiles || (files % 1000 === 0 && cpuMs() > deadline)) {
        incomplete = true;
        break;
      }
      const target = link(`${proc}/${pid}/fd/${fd}`);
      if (target === "anon_inode:inotify") inotify++;
      const socket = sockets.get(target);
      // The first process that has it: others have inherited it.
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

/** A thread may have descriptors that its process has not: clone(2), CLONE_FILES. */
function lookAtThreads(
  id: string,
  pids: string[],
  sockets: Map<string, Look["listening"][number]>,
  proc: string,
): void {
  const deadline = cpuMs() + maxCpuMs;
  let files = 0;
  for (const pid of pids) {
    for (const thread of list(`${proc}/${pid}/task`)) {
      const own = `${proc}/${pid}/task/${thread}`;
      if (cpuMs() > deadline) return;
      if (thread === pid || openFiles(`${own}/fd`) > maxFiles) continue;
      for (const fd of list(`${own}/fd`)) {
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

/** Linux 6.2 and later tell it as the directory's size, others 0. */
function openFiles(directory: string): number {
  try {
    return statSync(directory).size;
  } catch {
    return 0;
  }
}

/** By container, the first process first; a process cannot leave its cgroups. */
function processesOf(
  containers: string[],
  proc: string,
): Map<string, string[]> {
  const found = new Map<string, string[]>(containers.map((id) => [id, []]));
  for (const pid of list(proc)) {
    if (!/^\d+$/.test(pid)) continue;
    const groups = read(`${proc}/${pid}/cgroup`).match(/[0-9a-f]{64}/g) ?? [];
    const id = groups.find((group) => found.has(group));
    if (id !== undefined) found.get(id)?.push(pid);
  }
  for (const pids of found.values()) pids.sort((a, b) => Number(a) - Number(b));
  return found;
}

interface Socket {
  port: number;
  address: string;
  inode: string;
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

const maxTableBytes = 4 * 1024 ** 2;

/** The kernel lists listening sockets first: of others there may be very many. */
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
    // it has ended, or the kernel has no IPv6
  }
  return text;
}

// A process may end at any moment; what it was then is of no interest.

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function link(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}
