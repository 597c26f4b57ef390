import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Log } from "../../lib/std/log.ts";
import { ownerOf } from "../../lib/std/owned.ts";
import { nextPause, Supervisor } from "../../lib/parent/supervisor.ts";
import { waitFor } from "../../lib/std/wait.ts";

const test = suite<{ directory: string }>("supervisor");
const backoff = { first: 10, last: 40, forgivenAfter: 60_000 };

test.before.each((context) => {
  context.directory = mkdtempSync(join(tmpdir(), "hal9000-supervisor-"));
});

test.after.each(({ directory }) => rmSync(directory, { recursive: true }));

function supervise(directory: string, log: Log): Supervisor {
  const owner = ownerOf(directory);
  return new Supervisor({ log, changed: () => {}, owner, backoff });
}

test("nextPause() doubles up to the maximum, and is reset after a long run", () => {
  assert.is(nextPause(backoff, undefined, 0), 10);
  assert.is(nextPause(backoff, 10, 0), 20);
  assert.is(nextPause(backoff, 20, 0), 40);
  assert.is(nextPause(backoff, 40, 0), 40);
  assert.is(nextPause(backoff, 40, 60_000), 10);
});

test("end() ends only the named child, and does not restart it", async ({ directory }) => {
  const supervisor = supervise(directory, () => {});
  for (const name of ["one", "two"]) {
    supervisor.start({
      name,
      command: ["sleep", "60"],
      logFile: join(directory, name),
    });
  }
  await waitFor(() => supervisor.states.every(({ pid }) => pid), {
    for: "the children",
    timeoutMs: 5000,
  });
  await supervisor.end("nobody", 1000);
  assert.equal(supervisor.states.map(({ name }) => name), ["one", "two"]);
  await supervisor.end("one", 1000);
  assert.not(supervisor.has("one"));
  assert.ok(supervisor.has("two"));
  assert.is(supervisor.pidOf("one"), undefined);
  assert.ok(supervisor.pidOf("two"));
  await supervisor.stop(1000);
});

test("restarts a killed child, and logs it", async ({ directory }) => {
  const said: string[] = [];
  const supervisor = supervise(directory, (line) => said.push(line));
  supervisor.start({
    name: "sleeper",
    command: ["sleep", "60"],
    logFile: join(directory, "log"),
  });
  const first = await waitFor(() => supervisor.states[0]?.pid, {
    for: "the child",
    timeoutMs: 5000,
  });
  process.kill(first, "SIGKILL");
  const second = await waitFor(() => {
    const state = supervisor.states[0];
    return state?.restarts === 1 && state.pid !== first && state.pid;
  }, { for: "the restart", timeoutMs: 5000 });
  assert.is.not(second, first);
  assert.match(
    said[0] ?? "",
    /^sleeper was ended by SIGKILL; restarting it/,
  );
  await supervisor.stop(1000);
  assert.is(supervisor.states[0]?.pid, null);
  assert.throws(() => process.kill(second, 0));
});

test("reports a missing command, and retries", async ({ directory }) => {
  const said: string[] = [];
  const supervisor = supervise(directory, (line) => said.push(line));
  supervisor.start({
    name: "ghost",
    command: ["/no/such/program"],
    logFile: join(directory, "log"),
  });
  await waitFor(() => said.length >= 2, { for: "two tries", timeoutMs: 5000 });
  await supervisor.stop(1000);
  assert.match(said[0] ?? "", /^ghost could not be started/);
});

const hanging = { everyMs: 10, silentMs: 60, startMs: 60 };

test("kills and restarts a child that stops answering", async ({ directory }) => {
  const said: string[] = [];
  const supervisor = supervise(directory, (line) => said.push(line));
  const answering = new Map<number, number>();
  supervisor.start({
    name: "frozen",
    command: ["sleep", "60"],
    logFile: join(directory, "log"),
    watch: {
      ...hanging,
      // The first child answers twice, then hangs; its successor keeps answering.
      answers: (pid) => {
        const looks = (answering.get(pid) ?? 0) + 1;
        answering.set(pid, looks);
        const hangs = answering.size === 1 && looks > 2;
        return hangs ? new Promise(() => {}) : Promise.resolve(true);
      },
    },
  });
  await waitFor(() => supervisor.states[0]?.restarts === 1, {
    for: "the restart",
    timeoutMs: 5000,
  });
  await waitFor(() => answering.size === 2, {
    for: "the successor",
    timeoutMs: 5000,
  });
  assert.match(
    said[0] ?? "",
    /^frozen has not answered for \d+ ms; killing it/,
  );
  assert.match(said[1] ?? "", /^frozen was ended by SIGKILL/);
  await supervisor.stop(1000);
  assert.is(supervisor.states[0]?.restarts, 1);
});

test("gives a child time to start before it must answer", async ({ directory }) => {
  const said: string[] = [];
  const supervisor = supervise(directory, (line) => said.push(line));
  const startedAt = Date.now();
  supervisor.start({
    name: "slow",
    command: ["sleep", "60"],
    logFile: join(directory, "log"),
    watch: {
      everyMs: 10,
      silentMs: 20,
      startMs: 300,
      answers: () => Promise.reject(new Error("not yet")),
    },
  });
  await waitFor(() => said.length > 0, { for: "its end", timeoutMs: 5000 });
  assert.ok(Date.now() - startedAt >= 300);
  await supervisor.stop(1000);
});

test("stop() kills a child that does not exit", async ({ directory }) => {
  const logFile = join(directory, "log");
  const supervisor = supervise(directory, () => {});
  supervisor.start({
    name: "deaf",
    command: [
      "sh",
      "-c",
      "trap '' TERM; echo ready; while :; do sleep 1; done",
    ],
    logFile,
  });
  await waitFor(() => readFileSync(logFile, "utf8").includes("ready"), {
    for: "the child's word",
    timeoutMs: 5000,
  });
  const { pid } = supervisor.states[0] ?? {};
  await supervisor.stop(100);
  assert.throws(() => process.kill(pid ?? 0, 0));
});

test.run();
