// The places of an instance: its paths, names and labels.

import { dirname, join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  instanceNames,
  isOfInstance,
  label,
  type Role,
  roleLabels,
} from "../../lib/instance/labels.ts";
import {
  homeDirectories,
  homePaths,
  insideParent,
  insideWorker,
} from "../../lib/instance/paths.ts";

const test = suite("places");

const home = "/home/dave/.hal9000";
const paths = homePaths(home);

/** All paths by their meaning; those of something have an example's name. */
const places = Object.entries(paths).map(([what, at]) =>
  [
    what,
    typeof at === "string"
      ? at
      : (at as (...names: (string | number)[]) => string)("one", 1000),
  ] as const
);

const duplicates = (all: string[]) =>
  all.filter((one, index) => all.indexOf(one) !== index);

test("no two things in a home have the same path", () => {
  assert.equal(duplicates(places.map(([, at]) => at)), []);
  assert.equal(duplicates(homeDirectories(paths)), []);
});

test("every file of a home is in a directory of its own kind", () => {
  const made = [
    ...homeDirectories(paths),
    // Created when they are needed.
    ...[paths.damaged, paths.ended, paths.profiles, paths.nsenter],
    paths.workspace("one"),
    ...[join(home, "hosts"), join(home, "hosts", "projects")],
    ...[paths.namedSecrets, join(home, "sessions", "approved")],
    join(paths.logs, "builds"),
  ];
  for (const [what, at] of places) {
    if (at === home) continue;
    assert.ok(made.includes(dirname(at)), `${what}: ${at}`);
    const isFile = /\.\w+$/.test(at);
    assert.not.ok(isFile && dirname(at) === home, `${what}: ${at}`);
  }
});

test("the directories of a home are listed after those that contain them", () => {
  const listed = homeDirectories(paths);
  assert.is(listed[0], home);
  for (const [index, path] of listed.slice(1).entries()) {
    assert.ok(listed.slice(0, index + 1).includes(dirname(path)), path);
  }
  for (const name of ["memorybank", "backups", "migration", "secrets"]) {
    assert.ok(listed.includes(join(home, name)), name);
  }
});

test("approvals of different projects have different files without their path", () => {
  const one = paths.approval("/srv/one");
  assert.is(one, paths.approval("/srv/one"));
  assert.is.not(one, paths.approval("/srv/two"));
  assert.match(one, /\/sessions\/approved\/[0-9a-f]{32}\.json$/);
});

test("mount points in containers are absolute and distinct", () => {
  for (const inside of [insideParent, insideWorker]) {
    const all: string[] = Object.values(inside);
    assert.equal(duplicates(all), []);
    for (const path of all) assert.match(path, /^\/\w.*\w$/);
  }
});

test("labels of an instance are distinct and have its namespace", () => {
  const all: string[] = Object.values(label);
  assert.equal(duplicates(all), []);
  for (const name of all) assert.match(name, /^hal9000\.\w+$/);
  assert.equal(roleLabels("x", "net", home), {
    "hal9000.instance": "x",
    "hal9000.role": "net",
    "hal9000.home": home,
  });
});

const ownership: [role: Role, labels: Record<string, string>, own: boolean][] =
  [
    ["parent", roleLabels("x", "parent", home), true],
    ["parent", roleLabels("y", "parent", home), false],
    ["parent", { "hal9000.role": "parent" }, true],
    ["net", { "hal9000.role": "net" }, false],
    ["parent", { "hal9000.role": "worker" }, false],
    ["parent", {}, false],
    ["net", roleLabels("x", "parent", home), false],
  ];

for (const [role, labels, own] of ownership) {
  test(`isOfInstance() is ${own} for a ${role} with ${JSON.stringify(labels)}`, () => {
    assert.is(isOfInstance("x", role, labels), own);
  });
}

test("containers and volumes of an instance have distinct names with its prefix", () => {
  const { worker, session, warm, cache, volumes, ...own } = instanceNames("x");
  const all = [
    ...Object.values(own),
    ...Object.values(volumes),
    ...[worker("1"), session("1"), warm("1"), cache("npm")],
  ];
  assert.equal(duplicates(all), []);
  for (const name of all) assert.match(name, /^x-[a-z]/);
});

test("the name of a session's worker is shortened beyond Docker's limit", () => {
  const { session } = instanceNames("x");
  const longest = "s".repeat(63 - "x-session-".length);
  assert.is(session(longest), `x-session-${longest}`);
  const longer = session(`${longest}s`);
  assert.match(longer, /^x-session-[0-9a-f]{8}$/);
  assert.is.not(longer, session(`${longest}t`));
});

test.run();
