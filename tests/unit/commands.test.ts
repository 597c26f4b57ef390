import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Main } from "../../lib/cli/cli.ts";
import { main as buildImages } from "../../scripts/build-images.ts";
import { main as claudy } from "../../scripts/claudy.ts";
import { main as coordinator } from "../../scripts/coordinator.ts";
import { main as initVolumes } from "../../scripts/init-volumes.ts";
import { main as migrate } from "../../scripts/migrate.ts";
import { main as poolManager } from "../../scripts/pool-manager.ts";
import { main as rollback } from "../../scripts/rollback.ts";
import { main as spawnWorker } from "../../scripts/spawn-worker.ts";
import { runMain } from "../helper/run-main.ts";

const test = suite("commands");

const scripts: Record<string, Main> = {
  "build-images": buildImages,
  claudy,
  coordinator,
  "init-volumes": initVolumes,
  migrate,
  "pool-manager": poolManager,
  rollback,
  "spawn-worker": spawnWorker,
};

/** Exit code, part of stderr, and the command. */
const refusals: [code: number, says: string, command: string][] = [
  [2, 'Did you mean "--detach"', "spawn-worker --detatch ."],
  [2, "Unknown option -z", "spawn-worker -z ."],
  [2, "Unexpected arguments: ", "spawn-worker -d . ."],
  [2, "An argument is empty", "claudy "],
  [2, "Option --name was given 2 times", "spawn-worker -n a -n b ."],
  [2, "--json needs --detach", "spawn-worker --json ."],
  [2, "--json needs --detach", "claudy --json ."],
  [2, "--warm-only needs --detach", "spawn-worker --warm-only ."],
  [
    2,
    "--cold and --warm-only exclude",
    "spawn-worker -d --cold --warm-only .",
  ],
  [
    2,
    "--profile and --image exclude",
    "spawn-worker --profile node --image x .",
  ],
  [
    2,
    "--no-limits excludes",
    "spawn-worker -d --no-limits --memory 1g .",
  ],
  [2, "--status and --clean exclude", "init-volumes --clean --status"],
  [2, "No command was given", "coordinator"],
  [2, 'Did you mean "list"', "coordinator lst"],
  [2, 'Missing arguments: "stop', "coordinator stop"],
  [2, "Unexpected arguments: ", "coordinator list name"],
  [2, 'Did you mean "restart"', "claudy daemon restrt"],
  [2, "Available: start, stop, restart, status, logs", "claudy daemon"],
  [2, 'Unknown action "lst" of sessions', "claudy sessions lst"],
  [2, "Missing arguments", "claudy sessions rm"],
  [2, "Unknown option --publish", "claudy daemon status --publish 1:1"],
  [2, "--publish must be", "claudy daemon start --publish x"],
  [2, "PORT must be a port", "claudy ports open x"],
  [2, "HOST_PORT must be a port", "claudy ports open 3000 0"],
  [2, "--api-key is refused", "claudy --api-key sk-x ."],
  [2, "--api-key is refused", "claudy login --api-key sk-x"],
  [2, "--key and --token exclude", "claudy login --key --token"],
  [2, "Cannot ask: stdin is not a terminal", "claudy --setup"],
  [2, "Missing arguments for the CLI's plugin", "claudy plugin"],
  [2, 'Unsupported shell: "tcsh"', "claudy completion tcsh"],
  [2, "Name a shell, such as: claudy completion bash", "claudy completion"],
  [2, "--older-than must be a whole number", "claudy prune --older-than x"],
  [2, "--from-claude imports all", "claudy mcp add notes --from-claude"],
  [2, "must be a whole number", "pool-manager scale many"],
  [2, "exclude each other", "migrate --dry-run --abort"],
  [2, 'There is no image "nonsense"', "build-images --only nonsense"],
  [
    3,
    "the engine at /nonexistent/docker.sock is out of reach",
    "coordinator list",
  ],
  [
    3,
    "the engine at /nonexistent/docker.sock is out of reach",
    "claudy sessions",
  ],
  [
    3,
    "the engine at /nonexistent/docker.sock is out of reach",
    "rollback --list-backups --verify",
  ],
  [4, "No data of version 0.5", "migrate --dry-run"],
  [4, '"atach" is neither a command nor a directory', "claudy atach"],
  [4, "The pool is not running", "pool-manager warm"],
  [4, "The pool is not running", "pool-manager scale 99"],
  [4, "The pool is not running", "claudy pool scale 0"],
];

for (const [code, says, words] of refusals) {
  test(`${words || "nothing"} is refused: ${says}`, async () => {
    const [name = "", ...argv] = words.split(" ");
    const ran = await runMain(scripts[name] as Main, argv);
    assert.is(ran.code, code, ran.stderr);
    assert.ok(ran.stderr.includes(says), ran.stderr);
    assert.is(ran.stdout, "");
    assert.not.match(ran.stderr, /\n {4}at /);
  });
}

test("shows an error's stack trace only with --verbose", async () => {
  const ran = await runMain(coordinator, ["lst", "--verbose"]);
  assert.match(ran.stderr, /\n {4}at .*cli\.ts/);
});

test("--version prints the version and the build", async () => {
  for (const [name, main] of Object.entries(scripts)) {
    const { code, stdout } = await runMain(main, ["--version"]);
    assert.is(code, 0);
    assert.match(
      stdout,
      RegExp(`^(hal9000-)?${name} \\d+\\.\\d+\\.\\d+ \\(build \\w{8}\\)`),
    );
  }
});

test("config shows settings with their sources, and reports errors", async () => {
  const home = mkdtempSync(join(tmpdir(), "hal9000-commands-"));
  const env = { HAL9000_HOME: home, WORKER_CPUS: "1" };
  const shown = await runMain(claudy, ["config", "show", "--json"], { env });
  const settings = JSON.parse(shown.stdout) as { key: string; place: string }[];
  const placeOf = (key: string) => settings.find((s) => s.key === key)?.place;
  assert.is(placeOf("WORKER_CPUS"), "environment");
  assert.is(placeOf("WORKER_MEMORY"), "default");
  assert.is((await runMain(claudy, ["config", "check"], { env })).code, 0);
  const wrong = { ...env, WORKER_CPUS: "many" };
  const checked = await runMain(claudy, ["config", "check"], { env: wrong });
  assert.is(checked.code, 2);
  assert.match(checked.stdout, /WORKER_CPUS/);
  rmSync(home, { recursive: true });
});

test("completion lists all commands with their actions and options", async () => {
  const { stdout } = await runMain(claudy, ["completion", "bash"]);
  assert.match(
    stdout,
    /daemon\) words='start stop restart status logs .*--tail/,
  );
  assert.match(stdout, /run\) words='.*-C --project/);
});

test("output of a worker reaches a terminal only as text", async () => {
  const home = mkdtempSync(join(tmpdir(), "hal9000-commands-"));
  writeFileSync(join(home, "x"), "");
  const { stderr } = await runMain(claudy, ["completion", "\x1b]0;t\x07"], {
    env: { HAL9000_HOME: home },
  });
  assert.not.ok(stderr.includes("\x1b"));
  rmSync(home, { recursive: true });
});

test.run();
