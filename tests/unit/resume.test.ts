// Which sessions go on when the account's limit has reset.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { CliState } from "../../lib/session/activity.ts";
import { Resumer } from "../../lib/session/resume.ts";
import { carefulScript } from "../../lib/session/send.ts";
import type { Status } from "../../lib/usage/status.ts";

const reset = 100_000;

const statusOf = (...limited: [session: string, at: number][]) =>
  ({
    limited: Object.fromEntries(
      limited.map((
        [session, at],
      ) => [session, { project: "/p", at, resetsAt: reset }]),
    ),
  }) as unknown as Status;

function resumer(states: Record<string, CliState["activity"] | undefined>) {
  const told: [session: string, second: number][] = [];
  let now = 0;
  const log: string[] = [];
  const made = new Resumer({
    stateOf: (session) => {
      const activity = states[session];
      return activity && { activity, waitingFor: null };
    },
    send: (session, text) => {
      assert.match(text, /^Go on \(the limit has reset, \d\d:\d\d:\d\d\)$/);
      told.push([session, now / 1000]);
      if (session === "failing") return Promise.reject(new Error("no"));
      return Promise.resolve();
    },
    log: (line) => void log.push(line),
    random: () => 0.5,
  });
  /** Looks each second up to this time; returns whether it is done. */
  const until = async (status: Status | undefined, second: number) => {
    let isDone = false;
    for (; now < second * 1000; now += 1000) {
      isDone = await made.look(status, now);
    }
    return isDone;
  };
  return { told, until, log };
}

test("idle sessions go on after the reset, one after another", async () => {
  const { told, until } = resumer({ a: "idle", b: "idle", c: "idle" });
  const status = statusOf(["b", 2], ["a", 1], ["c", 3]);
  assert.is(await until(status, 101), false);
  assert.equal(told, []);
  assert.is(await until(status, 102), false);
  assert.equal(told, [["a", 101]]);
  assert.is(await until(status, 200), true);
  assert.equal(told, [["a", 101], ["b", 114], ["c", 127]]);
});

test("a session that waits for an answer, or has ended, is left alone", async () => {
  for (const state of ["waiting", "starting", undefined] as const) {
    const states = { asking: state as CliState["activity"] | undefined };
    const { told, until } = resumer(states);
    assert.is(await until(statusOf(["asking", 1]), 110), true);
    // Nor later, when a person has answered.
    states.asking = "idle";
    assert.is(await until(statusOf(["asking", 1]), 200), true);
    assert.equal(told, []);
  }
});

test("a session that tries again by itself goes on if it stops", async () => {
  const states: Record<string, CliState["activity"]> = { busy: "working" };
  const { told, until } = resumer(states);
  assert.is(await until(statusOf(["busy", 1]), 150), false);
  assert.equal(told, []);
  states["busy"] = "idle";
  await until(statusOf(["busy", 1]), 152);
  assert.equal(told, [["busy", 150]]);
  // Refused again.
  await until(statusOf(["busy", 9]), 170);
  assert.is(told.length, 2);
  // Half an hour later it is no longer expected to.
  assert.is(await until(statusOf(["busy", 17]), 1950), true);
});

test("one that cannot be told does not stop the others", async () => {
  const { told, until, log } = resumer({ failing: "idle", b: "idle" });
  assert.is(await until(statusOf(["failing", 1], ["b", 2]), 130), true);
  assert.equal(told.map(([session]) => session), ["failing", "b"]);
  assert.equal(log, [
    'Cannot resume "failing": no',
    "The limit has reset: b goes on",
  ]);
});

test("nothing is left to do where nothing is limited", async () => {
  const { until } = resumer({});
  assert.is(await until(undefined, 2), true);
  assert.is(await until(statusOf(), 4), true);
});

/** Runs the script with a fake tmux, which shows one of the screens at each look. */
function typeInto(...screens: string[]): { keys: string; status: number } {
  const directory = mkdtempSync(join(tmpdir(), "hal9000-resume-"));
  const put = (name: string, lines: string[]) =>
    writeFileSync(join(directory, name), ["#!/bin/sh", ...lines].join("\n"), {
      mode: 0o755,
    });
  put("sleep", []);
  put("tmux", [
    `cd '${directory}'`,
    'case "$*" in *capture-pane*)',
    "  look=$(cat looks 2>/dev/null || echo 0); echo $((look + 1)) >looks",
    `  [ "$look" -lt ${screens.length} ] || look=${screens.length - 1}`,
    '  cat "screen$look" ;;',
    '*send-keys*) shift 4; echo "$@" >keys ;; esac',
  ]);
  for (const [look, screen] of screens.entries()) {
    writeFileSync(join(directory, `screen${look}`), screen);
  }
  const PATH = `${directory}:${process.env["PATH"]}`;
  const { status } = spawnSync("sh", ["-c", carefulScript, "sh", "Go on"], {
    env: { PATH },
  });
  const keys = readFileSync(join(directory, "keys"), "utf8").trim();
  rmSync(directory, { recursive: true });
  return { keys, status: status ?? -1 };
}

test("a text is sent when a slow screen shows it alone, and deleted beside another", () => {
  const sent = { keys: "send-keys -t =claude: Enter", status: 0 };
  const deleted = { keys: "send-keys -t =claude: -N 5 BSpace", status: 1 };
  assert.equal(typeInto("❯", "❯", "❯", "❯ Go on"), sent);
  assert.equal(typeInto("❯\u00a0Go on"), sent);
  assert.equal(
    typeInto("❯", "❯ half a thought", "❯ half a thoughtGo on"),
    deleted,
  );
  assert.equal(typeInto("❯ half a thought"), deleted);
  assert.equal(typeInto("Do you want to proceed?\n ❯ 1. Yes"), deleted);
});

test.run();
