import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ownerOf } from "../../lib/owned.ts";
import { homePaths } from "../../lib/paths.ts";
import { parseState } from "../../lib/activity.ts";
import {
  readSession,
  readSessions,
  removeSessionRecord,
  writeSession,
} from "../../lib/session-record.ts";

test("parseState() takes what the CLI writes", () => {
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
  test(`parseState() passes over ${text.slice(0, 40) || "nothing"}`, () => {
    assert.is(parseState(text), undefined);
  });
}

test("sessions are read back, the latest used first, damaged ones passed over", () => {
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

test.run();
