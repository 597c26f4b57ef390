// The egress log, and the rules in HAL9000_HOME.

import {
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import * as v from "valibot";
import { compilePolicy } from "../../lib/egress/feed.ts";
import {
  egressJournal,
  type Entry,
  lastEntries,
} from "../../lib/egress/journal.ts";
import { policySchema } from "../../lib/egress/policy.ts";
import { Throttle } from "../../lib/egress/proxy/throttle.ts";
import { parseRule } from "../../lib/egress/rules.ts";
import {
  moveScope,
  readScope,
  removeScope,
  writeScope,
} from "../../lib/egress/store.ts";
import { directNetwork, writeHostNetwork } from "../../lib/egress/upstream.ts";
import { homePaths } from "../../lib/instance/paths.ts";
import { ensureHome } from "../../lib/instance/volumes.ts";

interface Context {
  instance: {
    home: ReturnType<typeof homePaths>;
    owner: { uid: number; gid: number };
    prefix: string;
  };
}

const test = suite<Context>("egress-journal");

test.before.each((context) => {
  const home = homePaths(mkdtempSync(join(tmpdir(), "egress-home-")));
  const owner = {
    uid: process.getuid?.() ?? 0,
    gid: process.getgid?.() ?? 0,
  };
  context.instance = { home, owner, prefix: "hal9000" };
  ensureHome(context.instance);
});

test.after.each(({ instance }) => {
  rmSync(instance.home.home, { recursive: true });
});

const entry = (change: Partial<Entry> = {}): Entry => ({
  time: "2026-11-28T12:00:00.000Z",
  session: "s",
  worker: "w",
  host: "a.example",
  port: 443,
  verdict: "refused",
  rule: "preset closed",
  bytesUp: 0,
  bytesDown: 0,
  ...change,
});

test("the log is private, and escapes what a terminal would interpret", ({ instance }) => {
  const journal = egressJournal(instance);
  const host = "\x1b]52;c;x\x07 \u202e\u2028 bücher";
  journal.append(JSON.stringify(entry({ host })));
  const text = readFileSync(instance.home.egressLog, "utf8");
  assert.match(text, /^[\x20-\x7e]+\n$/);
  assert.is(JSON.parse(text).host, host);
  assert.is(statSync(instance.home.egressLog).mode & 0o777, 0o600);
  assert.equal(lastEntries(instance, 10), [entry({ host })]);
});

test("lines of the proxy that are no entries are left out", ({ instance }) => {
  const journal = egressJournal(instance);
  const lines = [
    "",
    "{",
    "null",
    JSON.stringify({ ...entry(), verdict: "other" }),
    JSON.stringify({ ...entry(), bytesUp: -1 }),
    JSON.stringify({ ...entry(), host: "x".repeat(2000) }),
    JSON.stringify({ ...entry(), time: "now" }),
  ];
  for (const line of lines) journal.append(line);
  assert.not(existsSync(instance.home.egressLog));
  journal.append(JSON.stringify({ ...entry(), more: "unknown" }));
  assert.equal(lastEntries(instance, 10), [entry()]);
});

test("the log is rotated: three files of bounded size", ({ instance }) => {
  const { egressLog } = instance.home;
  const journal = egressJournal(instance, 2000);
  for (let port = 1; port <= 200; port++) {
    journal.append(JSON.stringify(entry({ port })));
  }
  for (const path of [egressLog, `${egressLog}.1`, `${egressLog}.2`]) {
    assert.ok(statSync(path).size < 2500, path);
  }
  assert.not(existsSync(`${egressLog}.3`));
  assert.equal(
    lastEntries(instance, 3).map(({ port }) => port),
    [198, 199, 200],
  );
  journal.append(JSON.stringify(entry({ session: "other" })));
  assert.is(lastEntries(instance, 10, "other").length, 1);
  assert.equal(lastEntries(instance, 0), []);
});

test("a worker's entries are limited at once and per second", () => {
  let now = 0;
  const throttle = new Throttle(2, 1, () => now);
  assert.equal(
    ["a", "a", "a", "b", "a"].map((worker) => throttle.pass(worker)),
    [0, 0, undefined, 0, undefined],
  );
  now = 1000;
  assert.is(throttle.pass("a"), 2);
  assert.is(throttle.pass("a"), undefined);
  throttle.keep(new Set(["b"]));
  assert.is(throttle.pass("a"), 0);
});

test("rules are kept for the instance, projects and sessions apart", ({ instance }) => {
  const rules = [parseRule("allow *.a.example:22")];
  const whose = [{}, { project: "/p" }, { session: "s" }];
  for (const one of whose) {
    assert.equal(readScope(instance, one), { rules: [] });
  }
  writeScope(instance, { project: "/p" }, { preset: "open", rules });
  assert.equal(readScope(instance, { project: "/p" }).rules, rules);
  assert.equal(readScope(instance, { project: "/other" }).rules, []);
  assert.equal(readScope(instance, {}).rules, []);
  writeScope(instance, { session: "s" }, { rules });
  moveScope(instance, "s", "t");
  assert.equal(readScope(instance, { session: "s" }).rules, []);
  assert.equal(readScope(instance, { session: "t" }).rules, rules);
  removeScope(instance, { session: "t" });
  assert.equal(readScope(instance, { session: "t" }).rules, []);
});

test("what cannot be read is null in the policy, which then refuses", ({ instance }) => {
  const { home } = instance;
  const compile = (env: NodeJS.ProcessEnv = {}) =>
    v.parse(
      policySchema,
      compilePolicy(instance, { HAL9000_HOME: home.home, ...env }),
    );
  assert.equal(compile().instance, { rules: [] });
  assert.is(compile().setting, "balanced");
  assert.is(compile({ EGRESS_PRESET: "wrong" }).setting, null);
  writeFileSync(home.egressInstance, "{");
  assert.is(compile().instance, null);
  rmSync(home.egressInstance);
  symlinkSync("/etc/passwd", home.egressInstance);
  assert.is(compile().instance, null);
  writeFileSync(
    home.egressSession("s"),
    '{"version":1,"of":"s","rules":["x"]}',
  );
  assert.is(compile().sessions["s"], null);
  // Of a project, only a worker's record names the path.
  writeFileSync(home.egressProject("/p"), "");
  const container = "a".repeat(64);
  writeFileSync(
    home.record("w"),
    JSON.stringify({
      version: 1,
      worker: "w",
      container,
      session: null,
      project: { path: "/p", uid: 0, gid: 0 },
      image: "image",
      born: "cold",
      home: "workers/w",
      ephemeral: true,
      secrets: null,
      memoryBytes: null,
      oomKilledAt: null,
      createdAt: "2026-11-28T12:00:00.000Z",
    }),
  );
  assert.is(compile().projects["/p"], null);
  assert.equal(compile().workers[container], {
    worker: "w",
    session: null,
    project: "/p",
    secrets: [],
  });
  // Nor past a proxy of the user's that is not known.
  writeHostNetwork(instance, directNetwork);
  assert.is(compile().setting, "balanced");
  assert.is(statSync(home.egressHost).mode & 0o777, 0o600);
  writeFileSync(home.egressHost, "{");
  assert.is(compile().setting, null);
});

test.run();
