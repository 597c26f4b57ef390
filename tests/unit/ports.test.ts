import {
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  nameListeners,
  nsenterId,
  ofNsenter,
} from "../../lib/session/listeners.ts";
import { judgeInotify } from "../../lib/doctor/inotify.ts";
import { ownerOf } from "../../lib/std/owned.ts";
import { homePaths } from "../../lib/instance/paths.ts";
import {
  freePorts,
  portBase,
  reservePorts,
} from "../../lib/instance/port-range.ts";
import {
  type Look,
  lookAtProcesses,
  parseListening,
} from "../../lib/helper/processes.ts";
import { contextText } from "../../lib/session/context.ts";
import { refuseOther } from "../../lib/commands/ports.ts";

/** Two names with the same range. */
function colliding(): [string, string] {
  const seen = new Map<number, string>();
  for (let count = 0;; count++) {
    const name = `session-${count}`;
    const base = portBase(name, 0);
    const other = seen.get(base);
    if (other !== undefined) return [other, name];
    seen.set(base, name);
  }
}

test("portBase() is stable for a name, and within the session ports", () => {
  for (let count = 0; count < 1000; count++) {
    const base = portBase(`s${count}`, count);
    assert.is(base, portBase(`s${count}`, count));
    assert.ok(base >= 20_000 && base + 20 <= 30_000 && base % 20 === 0);
  }
});

test("reservePorts() reserves different ranges for colliding names", () => {
  const root = mkdtempSync(join(tmpdir(), "hal9000-ports-"));
  const home = homePaths(root);
  const instance = { home, owner: ownerOf(root) };
  mkdirSync(home.ports, { recursive: true });
  mkdirSync(home.kept, { recursive: true });
  const [one, two] = colliding();
  const add = (name: string) => writeFileSync(home.session(name), "{}");
  add(one);
  add(two);
  const first = reservePorts(instance, one);
  const second = reservePorts(instance, two);
  assert.is(first, portBase(one, 0));
  assert.is(second, portBase(two, 1));
  assert.is(reservePorts(instance, two), second);
  // The range of a removed session is free again.
  freePorts(instance, two, first); // not its own
  assert.is(reservePorts(instance, two), second);
  freePorts(instance, one, first);
  assert.is(reservePorts(instance, two), first);
  rmSync(home.session(two));
  assert.is(reservePorts(instance, one), first);
  rmSync(root, { recursive: true });
});

test("contextText() describes only what is available", () => {
  const limits = { memoryBytes: 4 * 1024 ** 3, cpus: 2, pids: 100 };
  const text = contextText({
    limits,
    chromadbPort: 8000,
    portBase: 20_040,
    isolated: false,
    guarded: true,
  });
  assert.match(text, ".git/config and .git/hooks");
  assert.match(text, "4 GiB of memory, 2 CPUs, 100 processes");
  assert.match(text, "http://localhost:8000");
  assert.match(text, "Ports 20040 to 20059 are yours");
  const alone = contextText({
    limits: { memoryBytes: 0, cpus: 0, pids: 0 },
    chromadbPort: 8000,
    portBase: undefined,
    isolated: false,
    guarded: false,
  });
  assert.not.match(alone, "git");
  assert.match(alone, "Limits: none.");
  assert.not.match(alone, "localhost");
  const isolated = contextText({
    ...{ limits, chromadbPort: 8000, portBase: 20_040, guarded: false },
    isolated: true,
  });
  assert.match(isolated, "claudy egress allow HOST");
  assert.match(isolated, "http://localhost:8000");
  assert.not.match(isolated, "20040");
});

test("parseListening() finds listening sockets with their addresses", () => {
  const table = [
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
    "   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1",
    "   1: 00000000:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 78 1",
    "   2: 0100007F:1F40 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 79 1",
  ].join("\n");
  assert.equal(parseListening(table), [
    { port: 8000, address: "localhost", inode: "77" },
    { port: 3000, address: "every address", inode: "78" },
  ]);
});

const id = (digit: string) => digit.repeat(64);

/** A line of /proc/net/tcp. */
function line(port: string, state: string, inode: number): string {
  return `   0: 0100007F:${port} 00000000:0000 ${state} 0:0 0:0 0 0 0 ${inode} 1\n`;
}

/** A fake /proc with processes of two containers and an unrelated process. */
function fakeProc(): string {
  const proc = mkdtempSync(join(tmpdir(), "hal9000-proc-"));
  const process = (
    pid: number,
    namespace: string,
    name: string,
    links: string[],
  ) => {
    mkdirSync(join(proc, `${pid}`, "fd"), { recursive: true });
    mkdirSync(join(proc, `${pid}`, "ns"));
    const file = (name: string) => join(proc, `${pid}`, name);
    symlinkSync(`pid:[${namespace}]`, file("ns/pid"));
    writeFileSync(file("status"), `Name:\t${name}\nUid:\t1000\t1000\n`);
    links.forEach((link, fd) => symlinkSync(link, file(`fd/${fd}`)));
  };
  process(10, "4026531901", "chroma", ["socket:[77]", "/dev/null"]);
  process(11, "4026531902", "evil\\n\u001b", [
    "socket:[78]",
    ...Array.from({ length: 3 }, () => "anon_inode:inotify"),
  ]);
  process(12, "4026531836", "sshd", ["socket:[79]"]);
  process(14, "4026531902", "tool", ["anon_inode:inotify"]);
  const thread = join(proc, "11/task/13");
  mkdirSync(join(thread, "fd"), { recursive: true });
  writeFileSync(join(thread, "status"), "Name:\thidden\n");
  symlinkSync("socket:[81]", join(thread, "fd/0"));
  mkdirSync(join(proc, "10", "net"));
  writeFileSync(
    join(proc, "10", "net", "tcp"),
    "  sl  local\n" + line("1F40", "0A", 77) + line("0BB8", "0A", 78) +
      line("0016", "0A", 79) + line("0017", "0A", 81) + line("9999", "01", 80),
  );
  mkdirSync(join(proc, "sys/fs/inotify"), { recursive: true });
  writeFileSync(join(proc, "sys/fs/inotify/max_user_instances"), "128\n");
  return proc;
}

test("lookAtProcesses() assigns sockets and inotify instances to containers", () => {
  const proc = fakeProc();
  const look = lookAtProcesses(
    {
      netPid: 10,
      containers: [
        { id: id("a"), pid: 10, isolated: false },
        { id: id("b"), pid: 11, isolated: false },
        { id: id("c"), pid: 99, isolated: false },
      ],
    },
    proc,
  );
  assert.equal(
    look.listening.map(({ port, container, process }) => [
      port,
      container,
      process,
    ]),
    [[8000, id("a"), "chroma"], [3000, id("b"), "evil\\n\u001b"], [
      22,
      null,
      null,
    ], [23, id("b"), "hidden"]],
  );
  assert.equal(look.containers[1], {
    id: id("b"),
    uid: 1000,
    inotify: 4,
    incomplete: false,
  });
  assert.is(look.containers[2]?.uid, null);
  assert.is(look.inotifyLimit, 128);
  rmSync(proc, { recursive: true });
});

test("lookAtProcesses() lists the sockets of isolated containers' namespaces", () => {
  const proc = fakeProc();
  mkdirSync(join(proc, "11", "net"));
  writeFileSync(
    join(proc, "11", "net", "tcp"),
    "  sl  local\n" + line("0BB8", "0A", 78) + line("1F40", "0A", 90),
  );
  const containers = [{ id: id("b"), pid: 11, isolated: true }];
  const { listening } = lookAtProcesses({ netPid: null, containers }, proc);
  assert.equal(
    listening.map(({ port, network, container }) => [port, network, container]),
    [[3000, id("b"), id("b")], [8000, id("b"), null]],
  );
  rmSync(proc, { recursive: true });
});

test("ofNsenter() names or drops services, and assigns the rest to the worker", () => {
  const socket = (port: number, network: string | null, container = null) => ({
    ...{ port, address: "localhost", network, container, process: null },
  });
  const shared = socket(8000, null);
  const hidden = socket(3000, id("a"));
  const unknown = socket(3000, null);
  const listening = [shared, unknown, socket(8000, id("a")), hidden];
  assert.equal(ofNsenter(listening, { isolated: [8000], shared: [8000] }), [
    { ...shared, container: nsenterId, process: "nsenter" },
    unknown,
    { ...hidden, container: id("a") },
  ]);
});

const noContainers: Omit<Look, "listening"> = {
  containers: [],
  inotifyLimit: 128,
};

test("nameListeners() limits the ports shown per container, and notes that", () => {
  const listening = Array.from({ length: 5000 }, (_, index) => ({
    port: 10_000 + index,
    address: "localhost",
    network: null,
    container: id("b"),
    process: "python",
  }));
  const quiet = { ...listening[0], port: 20_000, container: id("a") };
  const { listeners, incomplete } = nameListeners(
    {
      listening: [...listening, quiet as Look["listening"][number]],
      containers: [
        { id: id("b"), uid: 0, inotify: 0, incomplete: true },
      ],
      inotifyLimit: 128,
    },
    [
      { id: id("a"), name: "one", session: null },
      { id: id("b"), name: "hoarder", session: null },
    ],
    [],
  );
  assert.is(listeners.length, 101);
  assert.is(listeners.at(-1)?.container, "one");
  assert.equal(incomplete.map(({ container, reason }) => [container, reason]), [
    ["hoarder", "has too many open files to inspect them all"],
    ["hoarder", "listens on 4900 more ports"],
  ]);
});

test("refuseOther() refuses a session's port that another worker uses", () => {
  const listeners = (container: string | null, session: string | null) =>
    nameListeners(
      {
        ...noContainers,
        listening: [{
          port: 20_045,
          address: "localhost",
          network: null,
          container,
          process: "node",
        }],
      },
      [{ id: id("a"), name: "worker-a", session }],
      [{ name: "holder", portBase: 20_040 }],
    ).listeners;
  refuseOther(listeners(id("a"), "holder"));
  assert.throws(
    () => refuseOther(listeners(id("a"), "thief")),
    /20045 is reserved for session "holder", but "worker-a" listens on it/,
  );
  assert.throws(
    () => refuseOther(listeners(null, null)),
    /but a process outside of all sessions listens on it/,
  );
  const hidden = { ...listeners(null, null)[0]!, reservedFor: null };
  assert.throws(
    () => refuseOther([hidden]),
    /which process listens on port 20045/,
  );
});

test("judgeInotify() reports the worker that uses up a user's inotify instances", () => {
  const held = (digit: string, uid: number, inotify: number) => ({
    id: id(digit),
    uid,
    inotify,
    incomplete: false,
  });
  const names = new Map([[id("a"), "calm"], [id("b"), "hoarder"]]);
  const judge = (...containers: Look["containers"]) =>
    judgeInotify({ containers, inotifyLimit: 128 }, names);
  assert.is(judge(held("a", 1000, 10), held("b", 0, 60)).state, "ok");
  const finding = judge(held("a", 1000, 10), held("b", 1000, 60));
  assert.is(finding.state, "warn");
  assert.match(finding.says, /70 of the 128 .* uid 1000, 60 .* "hoarder"/);
  assert.match(finding.mend ?? "", /stop hoarder, .*max_user_instances=1024/);
});

test.run();
