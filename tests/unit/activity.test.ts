import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  type CliState,
  cliState,
  readCliState,
  readEnding,
  withLimit,
} from "../../lib/session/activity.ts";
import type { Status } from "../../lib/usage/status.ts";
import { sessionChanges, type WatchedWorker } from "../../lib/session/watch.ts";

const idle = '{"status":"idle"}';
const busy = '{"status":"busy"}';
const waiting = '{"status":"waiting","waitingFor":"permission"}';

test("cliState() prefers the CLI's state to that of the hooks", () => {
  assert.is(cliState([idle], waiting)?.activity, "idle");
  assert.is(cliState([], waiting)?.activity, "waiting");
  assert.is(cliState(['{"status":'], busy)?.activity, "working");
  assert.is(cliState([], ""), undefined);
});

test("cliState() of several processes is the state most relevant to the user", () => {
  assert.equal(cliState([idle, waiting, busy], ""), {
    activity: "waiting",
    waitingFor: "permission",
  });
  assert.is(cliState([idle, busy], "")?.activity, "working");
});

test("parseState() escapes characters that would move the cursor or end a string", () => {
  const text = JSON.stringify({
    status: "waiting",
    waitingFor: "a\0b\x1b[2J\u202ec",
  });
  assert.is(cliState([text], "")?.waitingFor, "a b [2J c");
});

test("state files that their owner cannot read count as missing", () => {
  const home = mkdtempSync(join(tmpdir(), "hal9000-activity-"));
  mkdirSync(join(home, "sessions"));
  const files = ["sessions/1.json", "hal9000-activity.json", "hal9000-ended"]
    .map((name) => join(home, name));
  for (const path of files) {
    writeFileSync(path, idle);
    chmodSync(path, 0);
  }
  const nobody = 65534;
  const isRoot = process.geteuid?.() === 0;
  for (const path of isRoot ? [home, join(home, "sessions"), ...files] : []) {
    chownSync(path, nobody, nobody);
  }
  if (isRoot) process.seteuid?.(nobody);
  try {
    assert.is(readCliState(home), undefined);
    assert.is(readEnding(home), undefined);
  } finally {
    if (isRoot) process.seteuid?.(0);
  }
  rmSync(home, { recursive: true });
});

function watched(session: string | null, status?: string): WatchedWorker {
  return {
    worker: {
      name: session ?? "plain",
      id: "",
      state: "running",
      status: "",
      image: "",
      project: "/p",
      session,
      born: "cold",
      keep: false,
      createdAt: "",
      networkMode: "container:net",
      network: "shared",
      inputs: null,
    },
    said: status === undefined ? null : cliState([status], "") ?? null,
    exitCode: null,
  };
}

test("sessionChanges() reports the initial states, then the changes", () => {
  const first = [watched("a", idle), watched(null)];
  const told = sessionChanges(undefined, first);
  assert.equal(told, [
    { session: "a", project: "/p", from: null, to: "idle", waitingFor: null },
  ]);
  assert.equal(sessionChanges(first, [watched("a", idle)]), []);
  const [change] = sessionChanges(first, [watched("a", waiting)]);
  assert.is(change?.from, "idle");
  assert.is(change?.to, "waiting");
  assert.is(change?.waitingFor, "permission");
});

test("sessionChanges() reports added and removed sessions", () => {
  const now = [watched("a", busy)];
  assert.is(sessionChanges([], now)[0]?.from, "stopped");
  assert.is(sessionChanges(now, [])[0]?.to, "stopped");
  assert.is(sessionChanges(now, [watched("a")])[0]?.to, "stopped");
});

test("a session that works or idles is limited until the limit resets", () => {
  const at = new Date(2026, 10, 28, 2).getTime();
  const resetsAt = new Date(2026, 10, 28, 3).getTime();
  const status = {
    limited: { shop: { project: "/p", at, resetsAt } },
  } as unknown as Status;
  const state = (activity: CliState["activity"], session = "shop", now = at) =>
    withLimit({ activity, waitingFor: null }, status, session, now);
  const limited = { activity: "limited", waitingFor: "resets at 03:00" };
  assert.equal(state("idle"), limited);
  assert.equal(state("working"), limited);
  for (const other of ["waiting", "starting", "paused", "unknown"] as const) {
    assert.is(state(other).activity, other);
  }
  assert.is(state("idle", "constructor").activity, "idle");
  assert.is(state("idle", "shop", resetsAt).activity, "idle");
  const tomorrow = state("idle", "shop", at - 24 * 3600 * 1000);
  assert.is(tomorrow.waitingFor, "resets at 2026-11-28 03:00");
});

test.run();
