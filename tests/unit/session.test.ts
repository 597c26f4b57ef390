import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { processMark } from "../../lib/std/process-mark.ts";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ownerOf } from "../../lib/std/owned.ts";
import { homePaths } from "../../lib/instance/paths.ts";
import { parseState } from "../../lib/session/activity.ts";
import type { Instance } from "../../lib/instance/instance.ts";
import { countTerminals } from "../../lib/session/list.ts";
import { tmux } from "../../lib/session/tmux.ts";
import {
  readSession,
  readSessions,
  removeSessionRecord,
  writeSession,
} from "../../lib/instance/session-record.ts";

test("parseState() parses the CLI's state", () => {
  const text =
    '{"pid":7,"status":"waiting","waitingFor":"permission","cwd":"/workspace"}';
  assert.equal(parseState(text), {
    activity: "waiting",
    waitingFor: "permission",
  });
});

for (
  const text of [
    "",
    '{"status":"bu',
    "null",
    '{"status":"rm -rf"}',
    '{"status":"idle","waitingFor":7}',
    `{"status":"waiting","waitingFor":"${"x".repeat(2000)}"}`,
  ]
) {
  test(`parseState() ignores ${text.slice(0, 40) || "an empty text"}`, () => {
    assert.is(parseState(text), undefined);
  });
}

test("reads sessions most recently used first, and ignores damaged ones", () => {
  const root = mkdtempSync(join(tmpdir(), "hal9000-session-"));
  const instance = { home: homePaths(root), owner: ownerOf(root) };
  mkdirSync(instance.home.kept, { recursive: true });
  const createdAt = "2026-01-01T00:00:00.000Z";
  const session = (name: string, usedAt: string) => ({
    version: 1 as const,
    name,
    project: `/p/${name}`,
    createdAt,
    usedAt,
  });
  const one = session("one", "2026-02-01T00:00:00.000Z");
  const two = session("two", "2026-03-01T00:00:00.000Z");
  writeSession(instance, one);
  writeSession(instance, two);
  writeFileSync(instance.home.session("bad"), "{");
  writeFileSync(join(instance.home.kept, "notes.txt"), "{");
  const told: string[] = [];
  const log = (line: string) => told.push(line);
  assert.equal(readSessions(instance, log), [two, one]);
  assert.is(told.length, 1);
  assert.equal(readSession(instance, "one", log), one);
  for (const path of ["./one", "../kept/one", ".one", ""]) {
    assert.is(readSession(instance, path, log), undefined);
  }
  removeSessionRecord(instance, "one");
  assert.is(readSession(instance, "one", log), undefined);
  rmSync(root, { recursive: true });
});

test("countTerminals() counts the engine's terminals whose processes run", async () => {
  const shown = (name: string) => [
    ...["-c", 'echo $$ >"/tmp/$0"; exec "$@"', name],
    ...[...tmux, "attach-session", "-t", "=claude"],
  ];
  const shell = ["-c", 'exec "$@"', "id", "bash"];
  const mark = processMark();
  const session = shown(`${mark}-uuid`);
  const [namespace, pid, started] = mark.split(".");
  const execs: Record<string, unknown> = {
    shown: { Running: true, tty: true, arguments: session },
    ended: { Running: false, tty: true, arguments: session },
    asked: { Running: true, tty: false, arguments: [...tmux, "has-session"] },
    shell: { Running: true, tty: true, arguments: shell },
    killed: {
      Running: true,
      tty: true,
      arguments: shown(`${namespace}.4194305.${started}-uuid`),
    },
    pidUsedAgain: {
      Running: true,
      tty: true,
      arguments: shown(`${namespace}.${pid}.1-uuid`),
    },
    elsewhere: {
      Running: true,
      tty: true,
      arguments: shown(`1.4194305.1-uuid`),
    },
    nested: {
      Running: true,
      tty: true,
      arguments: ["-c", `exec ${tmux.join(" ")} new-session -t claude`],
    },
  };
  const docker = {
    getContainer: () => ({
      inspect: () => Promise.resolve({ ExecIDs: [...Object.keys(execs), "x"] }),
    }),
    getExec: (id: string) => ({
      inspect: () => {
        const found = execs[id] as { Running: boolean } | undefined;
        return found
          ? Promise.resolve({ Running: found.Running, ProcessConfig: found })
          : Promise.reject(new Error("no such exec"));
      },
    }),
  };
  const instance = { docker } as unknown as Pick<Instance, "docker">;
  assert.is(await countTerminals(instance, "id"), 3);
});

test.run();
