import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Log } from "../../lib/log.ts";
import { ownerOf } from "../../lib/owned.ts";
import { nextPause, Supervisor } from "../../lib/supervisor.ts";
import { waitFor } from "../../lib/wait.ts";

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

test("nextPause() doubles up to the last, and forgives", () => {
  assert.is(nextPause(backoff, undefined, 0), 10);
  assert.is(nextPause(backoff, 10, 0), 20);
  assert.is(nextPause(backoff, 20, 0), 40);
  assert.is(nextPause(backoff, 40, 0), 40);
  assert.is(nextPause(backoff, 40, 60_000), 10);
});

test("a child that is killed is started again, and told of", async ({ directory }) => {
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
    /^sleeper was ended by SIGKILL; starting it again/,
  );
  await supervisor.stop(1000);
  assert.is(supervisor.states[0]?.pid, null);
  assert.throws(() => process.kill(second, 0));
});

test("a command that is not there is told of and tried again", async ({ directory }) => {
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

test("stop() kills a child that does not end by itself", async ({ directory }) => {
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
