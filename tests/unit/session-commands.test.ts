// The commands for sessions and workers, with an engine that they can reach.

import { existsSync, mkdirSync, utimesSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { label } from "../../lib/instance/labels.ts";
import {
  closeRecord,
  type WorkerRecord,
  writeRecord,
} from "../../lib/instance/record.ts";
import {
  readSession,
  type SessionRecord,
  writeSession,
} from "../../lib/instance/session-record.ts";
import type { SessionState } from "../../lib/session/list.ts";
import { dayAfter, dayOf } from "../../lib/usage/days.ts";
import { main as claudy } from "../../scripts/claudy.ts";
import { main as coordinator } from "../../scripts/coordinator.ts";
import type { FakeContainer } from "../helper/fake-engine.ts";
import { type Served, serveEngine } from "../helper/served-engine.ts";

const test = suite<Served>("session commands");

test.before.each(async (context) =>
  void Object.assign(context, await serveEngine())
);
test.after.each(({ close }) => close());

const minutesAgo = (count: number) =>
  new Date(Date.now() - count * 60_000 - 1000).toISOString();

function keep(
  { instance, project }: Served,
  name: string,
  more: Partial<SessionRecord> = {},
): SessionRecord {
  const record: SessionRecord = {
    version: 1,
    name,
    project: project("app"),
    createdAt: minutesAgo(180),
    usedAt: minutesAgo(120),
    ...more,
  };
  writeSession(instance, record);
  return record;
}

function addWorker(
  { engine, instance, labels, project }: Served,
  name: string,
  session: string,
  change: Partial<FakeContainer> = {},
): FakeContainer {
  const worker = engine.add(name, {
    spec: {
      Image: "repo:worker",
      Labels: labels({
        [label.session]: session,
        [label.project]: project("app"),
      }),
      HostConfig: {
        NetworkMode: "container:fake-net",
        Memory: 1024 ** 3,
        NanoCpus: 15e8,
        PidsLimit: 77,
      },
    },
    ...change,
  });
  writeRecord(instance, recordOf(worker, session, project("app")));
  return worker;
}

function recordOf(
  { id, name }: FakeContainer,
  session: string,
  path: string,
): WorkerRecord {
  return {
    version: 1,
    worker: name,
    container: id,
    session,
    project: { path, uid: 1, gid: 1 },
    image: "repo:worker",
    born: "cold",
    home: `claude/${session}`,
    ephemeral: false,
    secrets: null,
    memoryBytes: 1024 ** 3,
    oomKilledAt: null,
    createdAt: minutesAgo(60),
  };
}

/** Cells of the lines of a table. */
const table = (text: string) =>
  text.trimEnd().split("\n").map((line) => line.split(/ {2,}/));

test("the list shows the usage of today, where there is any", async (served) => {
  const { run } = served;
  keep(served, "counted");
  keep(served, "other");
  const { home } = served.instance;
  const day = dayOf(Date.now());
  const write = (day: string) =>
    writeFileSync(
      home.usageStatus,
      JSON.stringify({
        version: 1,
        day,
        today: {
          counted: { requests: 1, tokens: 9, cost: 1.25, unpriced: 0 },
        },
        budgets: [],
        paused: [],
        limit: null,
        limited: {},
        windows: [],
        notices: [],
      }),
    );
  write(day);
  const { stdout } = await run(claudy, ["sessions"]);
  assert.match(stdout, /ACTIVE +TODAY +PROJECT/);
  assert.match(stdout, /^counted .* ago +1\.25 USD +\//m);
  assert.match(stdout, /^other .* ago +\//m);
  write(dayAfter(day, -1));
  assert.not.match((await run(claudy, ["sessions"])).stdout, "TODAY");
});

test("sessions are listed with their state, age and project", async (served) => {
  const { run, engine, project } = served;
  keep(served, "asking");
  keep(served, "gone", { usedAt: minutesAgo(30) });
  const worker = addWorker(served, "asking-worker", "asking");
  const note = { status: "waiting", waitingFor: "permission" };
  engine.run = () => ({
    exitCode: 0,
    output: `client\nclient\nnoted ${JSON.stringify(note)}\n`,
  });
  const { code, stdout, stderr } = await run(claudy, ["sessions"]);
  assert.is(code, 0);
  assert.is(stderr, "");
  const [head, first, second] = table(stdout);
  assert.equal(head, [
    ...["SESSION", "STATE", "MODE", "TERMINALS", "WORKER", "CREATED"],
    ...["ACTIVE", "PROJECT"],
  ]);
  // The one that was used last comes first; it has no terminals and no worker.
  assert.equal(first, [
    ...["gone", "stopped", "-", "3 h ago", "30 min ago", project("app")],
  ]);
  assert.equal(second, [
    ...[
      "asking",
      "waiting: permission",
      "-",
      "2",
      "cold",
      "3 h ago",
      "2 h ago",
    ],
    project("app"),
  ]);
  const narrow = await run(claudy, ["ls"], { columns: 80 });
  for (const line of narrow.stdout.trimEnd().split("\n")) {
    assert.ok(line.length <= 80, line);
  }
  assert.match(narrow.stdout, /^asking .*\/app$/m);
  assert.not.match(narrow.stdout, "CREATED");
  const wide = await run(claudy, ["ls"], { columns: 120 });
  assert.match(wide.stdout, "CREATED");
  const json = await run(claudy, ["sessions", "list", "--json"]);
  const [, asking] = JSON.parse(json.stdout) as SessionState[];
  assert.is(asking?.worker, worker.name);
  const waiting = await run(claudy, ["sessions", "--waiting"]);
  assert.equal(table(waiting.stdout).map(([name]) => name), [
    "SESSION",
    "asking",
  ]);
});

test("copies are measured for the list if that is asked for", async (served) => {
  const { run, instance } = served;
  keep(served, "plain");
  keep(served, "copied", { copy: true });
  const tree = instance.home.workspaceTree("copied");
  mkdirSync(tree, { recursive: true });
  writeFileSync(join(tree, "file"), "x".repeat(3 * 1024 ** 2));
  const { stdout } = await run(claudy, ["sessions", "--size"]);
  const [head] = table(stdout);
  assert.is(head?.at(-2), "COPY");
  assert.match(stdout, /^copied .* 3 MiB +\/.* \(copy\)$/m);
  const json = await run(claudy, ["sessions", "--size", "--json"]);
  const sizes = Object.fromEntries(
    JSON.parse(json.stdout).map((
      { name, workspace }: { name: string; workspace?: object },
    ) => [name, workspace]),
  );
  assert.is(sizes.plain, undefined);
  assert.is(sizes.copied.path, tree);
  assert.ok(sizes.copied.sizeBytes >= 3 * 1024 ** 2);
  assert.not.match((await run(claudy, ["sessions"])).stdout, "COPY");
});

test("a list of usual sessions fits 80 columns, with paths below the home", async (served) => {
  const { run, project } = served;
  keep(served, "claudy-website-ed0076f7", {
    permissionMode: "bypassPermissions",
  });
  const HOME = dirname(project("app"));
  const narrow = await run(claudy, ["ls"], { columns: 80, env: { HOME } });
  for (const line of narrow.stdout.trimEnd().split("\n")) {
    assert.ok(line.length <= 80, line);
  }
  assert.match(narrow.stdout, / ~\/app$/m);
  // A pipe gets whole paths.
  const piped = await run(claudy, ["ls"], { env: { HOME } });
  assert.match(piped.stdout, project("app"));
});

test("a session without a network, or that ran out of memory, says so in the list", async (served) => {
  const { run, instance, engine } = served;
  keep(served, "lost");
  const lost = addWorker(served, "lost-worker", "lost");
  lost.spec.HostConfig = { NetworkMode: "container:gone" };
  keep(served, "full", { usedAt: minutesAgo(300) });
  const full = engine.add("full-worker");
  closeRecord(instance, {
    ...recordOf(full, "full", "/p"),
    oomKilledAt: minutesAgo(2),
  }, { at: minutesAgo(1), exitCode: 137 });
  const [, first, second] = table((await run(claudy, ["sessions"])).stdout);
  assert.equal(first?.slice(0, 2), ["lost", "offline: its network has ended"]);
  assert.equal(second?.slice(0, 2), [
    "full",
    "stopped: OOM-killed at 1 GiB",
  ]);
});

test("the networks of sessions are listed unless all are shared", async (served) => {
  const { run, labels } = served;
  keep(served, "one");
  keep(served, "next", { network: "isolated" });
  keep(served, "alone");
  const worker = addWorker(served, "w", "alone");
  const networks = async (terminal: { columns?: number }) => {
    const ran = await run(claudy, ["ls"], terminal);
    const [headings = [], ...rows] = table(ran.stdout);
    const at = headings.indexOf("NETWORK");
    return Object.fromEntries(
      rows.map((row) => [row[0], row.at(at - headings.length)]),
    );
  };
  Object.assign(worker.spec, {
    Labels: labels({
      ...worker.spec.Labels,
      [label.network]: "isolated",
    }),
  });
  const expected = { one: "shared", next: "isolated", alone: "isolated" };
  for (const terminal of [{}, { columns: 80 }, { columns: 140 }]) {
    assert.equal(await networks(terminal), expected);
  }
  const list = await run(claudy, ["sessions", "list", "--json"]);
  const json = JSON.parse(list.stdout) as SessionState[];
  assert.equal(
    Object.fromEntries(json.map(({ name, network }) => [name, network])),
    expected,
  );
  for (const command of ["list", "status"]) {
    const { stdout } = await run(coordinator, [command]);
    const [headings, row] = table(stdout);
    assert.is(headings?.at(-2), "NETWORK");
    assert.is(row?.at(-2), "isolated");
  }
  const shown = await run(claudy, ["sessions", "show", "alone"]);
  assert.match(shown.stdout, /^network +isolated$/m);
  // One that is of the shared network, although another was chosen since.
  worker.spec.Labels = { ...worker.spec.Labels, [label.network]: "shared" };
  const status = await run(coordinator, ["status", "--json"]);
  assert.is(JSON.parse(status.stdout).workers[0].network, "shared");
  worker.spec.HostConfig = { NetworkMode: "bridge" };
  const other = await run(coordinator, ["list", "--json"]);
  assert.is(JSON.parse(other.stdout)[0].network, "standalone");
});

test("a session is shown with each of its fields", async (served) => {
  keep(served, "one", { profile: "node", portBase: 30_000 });
  keep(served, "other", { usedAt: minutesAgo(1) });
  const { stdout } = await served.run(claudy, ["sessions", "show", "one"]);
  const shown = Object.fromEntries(table(stdout));
  assert.is(shown["name"], "one");
  assert.is(shown["profile"], "node");
  assert.is(shown["portBase"], "30000");
  assert.is(shown["state"], "stopped");
  assert.is(shown["worker"], undefined);
  const json = await served.run(claudy, ["sessions", "show", "one", "--json"]);
  assert.is(JSON.parse(json.stdout).name, "one");
});

test("an unknown session is refused with a similar name", async (served) => {
  keep(served, "review");
  for (const words of ["sessions show", "attach", "stop", "logs"]) {
    const ran = await served.run(claudy, [...words.split(" "), "revew"]);
    assert.is(ran.code, 4);
    assert.match(ran.stderr, /There is no session (or worker )?"revew"/);
    assert.match(
      ran.stderr,
      'Did you mean "review"? See the sessions: claudy ls',
    );
  }
  const path = await served.run(claudy, ["sessions", "show", "../kept/review"]);
  assert.is(path.code, 4);
});

test("a session is removed with its worker, home and record only after consent", async (served) => {
  const { run, instance, engine, project } = served;
  keep(served, "old", { portBase: 30_000 });
  addWorker(served, "old-worker", "old");
  const home = join(instance.home.claude, "old");
  mkdirSync(home, { recursive: true });
  const refused = await run(claudy, ["sessions", "rm", "old"]);
  assert.is(refused.code, 6);
  assert.match(refused.stderr, "conversations and settings of old");
  assert.match(refused.stderr, `Will be kept: the project, ${project("app")}`);
  assert.match(refused.stderr, "Remove session old?");
  assert.ok(existsSync(home));
  const done = await run(claudy, ["sessions", "rm", "old", "--yes", "--json"]);
  assert.equal(JSON.parse(done.stdout), { removed: "old" });
  assert.not.ok(existsSync(home));
  assert.is(readSession(instance, "old"), undefined);
  assert.is(engine.find("old-worker"), undefined);
  assert.ok(existsSync(project("app")));
});

test("settings are copied only into a stopped session, and what was done is listed", async (served) => {
  const { run, root, instance } = served;
  keep(served, "one");
  const claude = join(root, "claude");
  mkdirSync(claude);
  writeFileSync(join(claude, "CLAUDE.md"), "# Rules\n");
  const argv = ["sessions", "sync", "one", "--claude-home", claude];
  const copied = await run(claudy, argv);
  assert.is(copied.code, 0, copied.stderr);
  assert.match(copied.stdout, /^copied: .*CLAUDE\.md$/m);
  const again = await run(claudy, argv);
  assert.is(again.stdout, "No changes\n");
  const own = join(instance.home.claude, "one", "CLAUDE.md");
  writeFileSync(own, "# Mine\n");
  writeFileSync(join(claude, "CLAUDE.md"), "# New rules\n");
  const kept = await run(claudy, argv);
  assert.match(kept.stdout, /^kept \(changed by the session\): .*CLAUDE\.md$/m);
  addWorker(served, "one-worker", "one");
  const live = await run(claudy, argv);
  assert.is(live.code, 5);
  assert.match(live.stderr, 'Session "one" is running');
  assert.match(live.stderr, "claudy stop one");
});

test("a session can be attached to only from a terminal", async (served) => {
  const { run } = served;
  keep(served, "one");
  for (const state of [undefined, "running"] as const) {
    if (state) addWorker(served, `${state}-worker`, "one", { state });
    const { code, stderr } = await run(claudy, ["attach", "one"]);
    assert.is(code, 2);
    assert.is(
      stderr,
      "error: Cannot attach: stdin is not a terminal\nRun it in a terminal.\n",
    );
  }
});

test("a paused session is reported as such, with what resumes it", async (served) => {
  keep(served, "one");
  addWorker(served, "one-worker", "one", { state: "paused" });
  for (const words of ["attach one", "exec one -- ls", "send one hello"]) {
    const { code, stderr } = await served.run(claudy, words.split(" "));
    assert.is(code, 5, words);
    assert.is(
      stderr,
      'error: The worker of "one" is paused\nResume it: docker unpause one-worker\n',
    );
  }
});

test("stop ends the worker of a session, and tells whether there was one", async (served) => {
  const { run, engine, instance } = served;
  keep(served, "one");
  addWorker(served, "one-worker", "one");
  const stopped = await run(claudy, ["stop", "one"]);
  assert.is(stopped.stdout, "one\n");
  assert.is(engine.find("one-worker"), undefined);
  assert.ok(readSession(instance, "one"));
  const again = await run(claudy, ["stop", "one"]);
  assert.is(again.stdout, "one was not running\n");
  const json = await run(claudy, ["stop", "one", "--json"]);
  assert.equal(JSON.parse(json.stdout), { session: "one", stopped: false });
});

test("the kept log of a stopped session is the newest, and can be cut to its end", async (served) => {
  const { run, instance: { home, names } } = served;
  keep(served, "one");
  const none = await run(claudy, ["logs", "--worker", "one"]);
  assert.is(none.code, 4);
  assert.match(none.stderr, 'The worker of "one" has no log');
  assert.match(none.stderr, "claudy logs one");
  const older = home.log("one");
  const newer = home.log(names.session("one"));
  mkdirSync(dirname(older), { recursive: true });
  writeFileSync(older, "older\n");
  utimesSync(older, 1, 1);
  writeFileSync(newer, "1\n2\n3\n");
  assert.is(
    (await run(claudy, ["logs", "--worker", "one"])).stdout,
    "1\n2\n3\n",
  );
  const tail = (count: string) =>
    run(claudy, ["logs", "--worker", "one", "--tail", count]).then((
      { stdout },
    ) => stdout);
  assert.is(await tail("2"), "2\n3\n");
  assert.is(await tail("3"), "1\n2\n3\n");
  assert.is(await tail("9"), "1\n2\n3\n");
  utimesSync(newer, 0, 0);
  assert.is((await run(claudy, ["logs", "--worker", "one"])).stdout, "older\n");
});

test("coordinator lists, counts and describes workers with their limits", async (served) => {
  const { run, instance, project } = served;
  addWorker(served, "b", "two");
  const free = addWorker(served, "a", "one", { state: "exited" });
  free.spec.HostConfig = { NetworkMode: "container:gone" };
  const listed = table((await run(coordinator, ["list"])).stdout);
  assert.equal(listed, [
    ["NAME", "STATUS", "IMAGE", "PROJECT"],
    ["a", "exited", "repo:worker", project("app")],
    ["b", "Up 5 minutes", "repo:worker", project("app")],
  ]);
  assert.is((await run(coordinator, ["count"])).stdout, "1\n");
  const count = await run(coordinator, ["count", "--json"]);
  assert.equal(JSON.parse(count.stdout), { count: 1 });
  free.state = "running";
  const offline = await run(coordinator, ["list"]);
  assert.match(offline.stdout, /^a +Up 5 minutes, its network has ended/m);
  const worker = served.engine.add("ended-worker");
  const end = { at: minutesAgo(5), exitCode: 7 };
  closeRecord(instance, recordOf(worker, "s", "/p"), end);
  const done = { ...recordOf(worker, "s", "/p"), worker: "stopped-worker" };
  closeRecord(instance, done, { at: minutesAgo(9), exitCode: 143 });
  const { stdout } = await run(coordinator, ["status"]);
  const [live = "", ended = ""] = stdout.split("\n\n");
  assert.equal(table(live), [
    ["NAME", "STATUS", "MEMORY", "CPUS", "PIDS", "PROJECT"],
    [
      ...["a", "Up 5 minutes, its network has ended"],
      ...["no limit", "no limit", "no limit", project("app")],
    ],
    ["b", "Up 5 minutes", "1 GiB", "1.5", "77", project("app")],
  ]);
  assert.equal(table(ended), [
    ["ENDED", "HOW", "WHEN", "PROJECT"],
    ["ended-worker", "exit code 7", "5 min ago", "/p"],
    ["stopped-worker", "stopped", "9 min ago", "/p"],
  ]);
});

test("claudy and claudy run refuse workers without limits that are required", async (served) => {
  const { run, engine, project } = served;
  engine.images.set("repo:worker", { Config: {} });
  Object.assign(engine.about, { PidsLimit: false });
  const directory = project("app");
  for (
    const [words, env] of [
      [["-d", "--require-limits", directory], {}],
      [["-d", directory], { REQUIRE_LIMITS: "true" }],
      [["run", "--require-limits", "-C", directory, "hello"], {}],
    ] as const
  ) {
    const { code, stderr } = await run(claudy, [...words], { env });
    assert.is(code, 6, stderr);
    assert.match(stderr, "error: The engine cannot limit processes of");
  }
});

test("coordinator shows the resource usage of running workers", async (served) => {
  const { run, engine } = served;
  addWorker(served, "a", "one");
  addWorker(served, "b", "two", { state: "exited" });
  engine.sample = {
    cpu_stats: {
      cpu_usage: { total_usage: 300 },
      system_cpu_usage: 2000,
      online_cpus: 2,
    },
    precpu_stats: { cpu_usage: { total_usage: 200 }, system_cpu_usage: 1000 },
    memory_stats: { usage: 3 * 1024 ** 2, stats: { inactive_file: 1024 ** 2 } },
    pids_stats: { current: 5 },
  };
  assert.equal(table((await run(coordinator, ["stats"])).stdout), [
    ["NAME", "CPU", "MEMORY", "PIDS"],
    ["a", "20.0 %", "2 MiB", "5"],
  ]);
  // The sample of an engine without cgroups has the figures of the whole machine.
  Object.assign(engine.about, { CgroupDriver: "none" });
  assert.equal(table((await run(coordinator, ["stats"])).stdout), [
    ["NAME", "CPU", "MEMORY", "PIDS"],
    ["a", "n/a", "n/a", "n/a"],
  ]);
  const [shown] = JSON.parse(
    (await run(coordinator, ["stats", "--json"])).stdout,
  );
  assert.is(shown.memoryBytes, null);
  engine.sample = {};
  assert.is((await run(coordinator, ["stats", "--json"])).stdout, "[]\n");
});

test("coordinator stops the named workers, and all only after consent", async (served) => {
  const { run, engine } = served;
  for (const name of ["a", "b", "c", "e"]) {
    addWorker(served, name, `s-${name}`);
  }
  const unknown = await run(coordinator, ["stop", "a", "d"]);
  assert.equal([unknown.code, unknown.stdout], [8, "a\n"]);
  assert.is(
    unknown.stderr,
    'error: There is no worker "d"\nList them: hal9000-coordinator list\n',
  );
  assert.is(engine.find("a"), undefined);
  assert.is((await run(coordinator, ["stop", "b"])).stdout, "b\n");
  const refused = await run(coordinator, ["stop-all"]);
  assert.is(refused.code, 6);
  assert.match(refused.stderr, "Stop c, e?");
  const all = await run(coordinator, ["stop-all", "--yes", "--json"]);
  assert.equal(JSON.parse(all.stdout), ["c", "e"]);
  const none = await run(coordinator, ["stop-all"]);
  assert.is(none.code, 0);
  const missing = await run(coordinator, ["stop", "a"]);
  assert.match(
    missing.stderr,
    "No worker exists. Start one: hal9000-spawn-worker",
  );
});

test("a worker that cannot be stopped does not keep the others from being stopped", async (served) => {
  const { run, engine } = served;
  for (const name of ["a", "b", "c"]) addWorker(served, name, `s-${name}`);
  engine.refuses.set("remove a", 500);
  const ran = await run(coordinator, ["stop-all", "--yes"]);
  assert.is(ran.stdout, "b\nc\n");
  assert.is.not(ran.code, 0);
  assert.match(ran.stderr, /^error: .*a/m);
  assert.ok(engine.find("a"));
});

test("coordinator attach tells why a worker cannot be attached to", async (served) => {
  const { run } = served;
  const worker = addWorker(served, "a", "one", { state: "paused" });
  const attach = async () =>
    (await run(coordinator, ["attach", "a"])).stderr.split("\n").slice(0, 2);
  assert.equal(await attach(), [
    'error: Cannot attach: "a" is paused',
    "Resume it: docker unpause a",
  ]);
  worker.state = "exited";
  assert.equal(await attach(), [
    'error: Cannot attach: "a" has ended',
    "See why: claudy logs --worker a",
  ]);
  worker.state = "running";
  assert.equal(await attach(), [
    "error: Cannot attach: stdin is not a terminal",
    "Run a command instead: claudy exec a -- COMMAND",
  ]);
});

test("coordinator logs prints the kept log of a removed worker, and no other file", async (served) => {
  const { run, instance: { home } } = served;
  mkdirSync(dirname(home.log("gone")), { recursive: true });
  writeFileSync(home.log("gone"), "one\ntwo\n");
  const argv = ["logs", "gone", "--tail", "1"];
  assert.is((await run(coordinator, argv)).stdout, "two\n");
  for (const name of ["../logs/gone", "other"]) {
    const ran = await run(coordinator, ["logs", name]);
    assert.is(ran.code, 4);
    assert.is(ran.stdout, "");
  }
});

test.run();
