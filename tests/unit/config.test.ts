import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  confTemplate,
  homeOf,
  readSettings,
  settingFaults,
  withSetting,
  writeSetting,
} from "../../lib/instance/config.ts";
import { homePaths } from "../../lib/instance/paths.ts";
import { Failure } from "../../lib/std/errors.ts";
import { ownerOf } from "../../lib/std/owned.ts";

const test = suite<{ home: string }>("config");

test.before.each((context) => {
  context.home = mkdtempSync(join(tmpdir(), "hal9000-config-"));
  mkdirSync(join(context.home, "config"));
});

test.after.each(({ home }) => rmSync(home, { recursive: true }));

function conf(home: string, text: string): NodeJS.ProcessEnv {
  writeFileSync(join(home, "config", "hal9000.conf"), text);
  return { HAL9000_HOME: home };
}

function failureOf(run: () => unknown): Failure {
  try {
    run();
  } catch (error) {
    if (error instanceof Failure) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

test("readSettings() returns defaults without file and environment", () => {
  const settings = readSettings({ HAL9000_HOME: "/nowhere" });
  assert.is(settings.WORKER_MEMORY, 4 * 1024 ** 3);
  assert.is(settings.WORKER_CPUS, 2);
  assert.is(settings.WORKER_PIDS_LIMIT, undefined);
  assert.is(settings.CHROMADB_PORT, 8000);
  assert.is(settings.HAL9000_PREFIX, "hal9000");
  assert.is(settings.SKIP_IMAGE_PULL, false);
});

test("readSettings() derives the repository from the prefix unless it is set", ({ home }) => {
  const repository = (env: NodeJS.ProcessEnv) =>
    readSettings({ HAL9000_HOME: "/nowhere", ...env }).HAL9000_IMAGE_REPO;
  const shared = "ghcr.io/hellblazer/hal-9000";
  assert.is(repository({}), shared);
  assert.is(repository({ HAL9000_PREFIX: "mine" }), "mine");
  const named = { HAL9000_PREFIX: "mine", HAL9000_IMAGE_REPO: "r/x" };
  assert.is(repository(named), "r/x");
  assert.is(repository(conf(home, "HAL9000_PREFIX=filed\n")), "filed");
  assert.equal(
    settingFaults({ HAL9000_HOME: "/nowhere", HAL9000_PREFIX: "a b" }).length,
    1,
  );
});

test("readSettings() accepts project roots with an extra colon", () => {
  const roots = (text: string) =>
    readSettings({ HAL9000_PROJECT_ROOTS: text }).HAL9000_PROJECT_ROOTS;
  assert.equal(roots("/a:"), ["/a"]);
  assert.equal(roots(":/a::/b"), ["/a", "/b"]);
  for (const text of [":", "a", "/a:b"]) {
    assert.throws(() => roots(text), /must be absolute paths/);
  }
});

const bounds: [string, number, number][] = [
  ["CHROMADB_PORT", 1, 65535],
  ["MIN_WARM_WORKERS", 0, 100],
  ["MAX_WARM_WORKERS", 0, 100],
  ["IDLE_TIMEOUT", 1, 86400],
  ["CHECK_INTERVAL", 1, 3600],
];
for (const [key, least, most] of bounds) {
  test(`${key} is from ${least} to ${most}`, () => {
    const read = (value: unknown) => readSettings({ [key]: String(value) });
    for (const value of [least, most]) {
      assert.is((read(value) as unknown as Record<string, number>)[key], value);
    }
    for (const value of [least - 1, most + 1, 1.5, "x"]) {
      assert.throws(() => read(value), new RegExp(key));
    }
  });
}

test("readSettings() prefers flag to environment to file", ({ home }) => {
  const env = conf(home, "WORKER_CPUS=0.5\nWORKER_PIDS_LIMIT=7\n# a comment\n");
  assert.is(readSettings(env).WORKER_CPUS, 0.5);
  assert.is(readSettings({ ...env, WORKER_CPUS: "1" }).WORKER_CPUS, 1);
  const flags = { WORKER_CPUS: { text: "3", place: "--cpus" } };
  const settings = readSettings({ ...env, WORKER_CPUS: "1" }, { flags });
  assert.is(settings.WORKER_CPUS, 3);
  assert.is(settings.WORKER_PIDS_LIMIT, 7);
});

test("readSettings() treats an empty variable as unset", () => {
  const env = { HAL9000_HOME: "/nowhere", WORKER_MEMORY: "" };
  assert.is(readSettings(env).WORKER_MEMORY, 4 * 1024 ** 3);
});

test("readSettings() reports file, line, key and value of an invalid setting", ({ home }) => {
  const env = conf(home, "\n# pool\nMIN_WARM_WORKERS=abc\n");
  const failure = failureOf(() => readSettings(env));
  assert.is(failure.exitCode, 2);
  assert.is(
    failure.message,
    'config/hal9000.conf:3: MIN_WARM_WORKERS must be a whole number from 0 to 100, got "abc"',
  );
});

const bad: [string, string][] = [
  ["WORKER_MEMORY", "lots"],
  ["WORKER_MEMORY", "-1g"],
  ["WORKER_CPUS", "0"],
  ["WORKER_CPUS", "1e3"],
  ["WORKER_PIDS_LIMIT", "0"],
  ["CHROMADB_PORT", "65536"],
  ["LAZY_IMAGE_PULL", "yes"],
  ["HAL9000_PREFIX", "Not Legal"],
  ["HAL9000_PROJECT_ROOTS", "relative/path"],
];

for (const [key, value] of bad) {
  test(`readSettings() refuses ${key}=${value} and names the environment`, () => {
    const failure = failureOf(() =>
      readSettings({ HAL9000_HOME: "/nowhere", [key]: value })
    );
    assert.is(failure.exitCode, 2);
    assert.match(failure.message, new RegExp(`^environment: ${key} must be`));
  });
}

test("readSettings() suggests the nearest key for an unknown one", ({ home }) => {
  const env = conf(home, "WORKER_MEMROY=1g\n");
  const warnings: string[] = [];
  readSettings(env, { warn: (line) => warnings.push(line) });
  assert.equal(warnings, [
    'config/hal9000.conf:1: unknown setting WORKER_MEMROY. Did you mean "WORKER_MEMORY"?',
  ]);
});

test("readSettings() refuses a line that is not KEY=VALUE", ({ home }) => {
  const failure = failureOf(() => readSettings(conf(home, "nonsense\n")));
  assert.is(failure.message, "config/hal9000.conf:1: must be KEY=VALUE");
});

test("withSetting() changes one line and keeps the others", () => {
  const set = (text: string) => withSetting(text, "WORKER_CPUS", "4");
  assert.is(set(""), "WORKER_CPUS=4\n");
  assert.is(set("A=1"), "A=1\nWORKER_CPUS=4\n");
  assert.is(set("A=1\n"), "A=1\nWORKER_CPUS=4\n");
  assert.is(set("WORKER_CPUS=1\nA=1\n"), "WORKER_CPUS=4\nA=1\n");
  assert.is(
    set("# of mine\n#WORKER_CPUS=2\nA=1\n"),
    "# of mine\n#WORKER_CPUS=2\nWORKER_CPUS=4\nA=1\n",
  );
  // The last of two lines counts.
  assert.is(
    set("WORKER_CPUS=4\nWORKER_CPUS=1\n"),
    "WORKER_CPUS=4\nWORKER_CPUS=4\n",
  );
  const same = ' WORKER_CPUS = "4"\n';
  assert.is(set(same), same);
});

test("writeSetting() creates the file, and follows a link to it", ({ home }) => {
  const paths = { home: homePaths(home), owner: ownerOf(home) };
  const { conf } = paths.home;
  assert.is(writeSetting(paths, "WORKER_NETWORK", "isolated"), true);
  const text = readFileSync(conf, "utf8");
  assert.is(
    text,
    confTemplate().replace(
      "#WORKER_NETWORK=shared\n",
      "#WORKER_NETWORK=shared\nWORKER_NETWORK=isolated\n",
    ),
  );
  assert.is(writeSetting(paths, "WORKER_NETWORK", "isolated"), false);
  const elsewhere = join(home, "elsewhere");
  renameSync(conf, elsewhere);
  symlinkSync(elsewhere, conf);
  writeSetting(paths, "WORKER_NETWORK", "shared");
  assert.ok(lstatSync(conf).isSymbolicLink());
  assert.is(readSettings({ HAL9000_HOME: home }).WORKER_NETWORK, "shared");
});

test("homeOf() is ~/.hal9000 unless HAL9000_HOME is set", () => {
  assert.is(homeOf({ HOME: "/home/dave" }), "/home/dave/.hal9000");
  assert.is(homeOf({ HAL9000_HOME: "/srv/hal//" }), "/srv/hal");
  assert.is(failureOf(() => homeOf({ HAL9000_HOME: "hal" })).exitCode, 2);
});

test.run();
