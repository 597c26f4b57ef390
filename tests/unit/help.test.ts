// The help of each command and of its actions.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Main } from "../../lib/cli/cli.ts";
import { main as buildImages } from "../../scripts/build-images.ts";
import { main as claudy } from "../../scripts/claudy.ts";
import { main as coordinator } from "../../scripts/coordinator.ts";
import { main as engine } from "../../scripts/engine.ts";
import { main as initVolumes } from "../../scripts/init-volumes.ts";
import { main as mcpGateway } from "../../scripts/mcp-gateway.ts";
import { main as migrate } from "../../scripts/migrate.ts";
import { main as poolManager } from "../../scripts/pool-manager.ts";
import { main as rollback } from "../../scripts/rollback.ts";
import { main as spawnWorker } from "../../scripts/spawn-worker.ts";
import { runMain } from "../helper/run-main.ts";

const test = suite("help");

const scripts: Record<string, Main> = {
  "build-images": buildImages,
  claudy,
  coordinator,
  engine,
  "init-volumes": initVolumes,
  "mcp-gateway": mcpGateway,
  migrate,
  "pool-manager": poolManager,
  rollback,
  "spawn-worker": spawnWorker,
};

/** The commands of claudy, and the actions of each. */
const commands: Record<string, string[]> = {
  attach: [],
  stop: [],
  exec: [],
  send: [],
  rename: [],
  move: [],
  sessions: ["list", "show", "rm", "sync"],
  fork: [],
  fetch: [],
  diff: [],
  merge: [],
  compare: [],
  pick: [],
  pull: [],
  logs: [],
  watch: [],
  ports: ["list", "open"],
  egress: ["show", "allow", "deny", "preset", "log", "check"],
  usage: [],
  budget: ["show", "set", "rm", "release"],
  run: [],
  login: [],
  logout: [],
  secret: ["set", "list", "rm"],
  up: [],
  upgrade: [],
  daemon: ["start", "stop", "restart", "status", "logs"],
  pool: [
    ...["start", "stop", "status", "scale", "cleanup", "drain", "warm"],
    "claim",
  ],
  dashboard: [],
  config: ["show", "path", "check"],
  profile: ["list", "build"],
  host: ["list", "add", "rm", "check", "install", "run", "repository"],
  images: ["save", "load"],
  plugin: [],
  mcp: [
    ...["start", "stop", "restart", "status", "logs", "list", "add", "remove"],
    "doctor",
  ],
  doctor: [],
  prune: [],
  uninstall: [],
  completion: [],
};

/** The lines of each section of a help text, by its title. */
function sectionsOf(text: string): Map<string, string[]> {
  const sections = new Map<string, string[]>();
  for (const block of text.trimEnd().split("\n\n")) {
    const [title = "", ...lines] = block.split("\n");
    if (title.endsWith(":")) sections.set(title.slice(0, -1), lines);
  }
  return sections;
}

/** cac prints help on the console. */
async function helpOf(
  script: string,
  words: string[] = [],
  env: NodeJS.ProcessEnv = {},
): Promise<string> {
  const main = scripts[script] as Main;
  const { code, stdout, stderr } = await runMain(
    main,
    words[0] === "help" ? words : [...words, "--help"],
    { env },
  );
  assert.equal([code, stderr], [0, ""]);
  return stdout;
}

const optionLine =
  /^ {2}(-\w|(-\w, )?--[a-z][\w-]*)( [<[].+[>\]])? {2,}[\w(]\S* \S/;
const commandLine = /^ {2}[a-z-]+( [<[][^>\]]+[>\]])* {2,}[A-Z]\S* \S/;

/** Names the actions that a help text lists; each line has a description. */
function checked(name: string, text: string): string[] {
  const [first = ""] = name.split(" ");
  const whole = first === "claudy" ? name : `hal9000-${name}`;
  assert.ok(text.startsWith(`${whole}/`), text);
  const sections = sectionsOf(text);
  assert.ok(sections.get("Usage")?.[0]?.startsWith(`  $ ${whole} `), text);
  for (const line of sections.get("Options") ?? []) {
    assert.match(line, optionLine, `${name}: ${line}`);
  }
  for (const example of sections.get("Examples") ?? []) {
    assert.ok(example.includes(name.split(" ")[0] ?? ""), text);
  }
  return (sections.get("Commands") ?? []).map((line) => {
    assert.match(line, commandLine, `${name}: ${line}`);
    return line.trim().split(" ")[0] ?? "";
  });
}

for (const name of Object.keys(scripts)) {
  test(`${name} --help explains all its options and actions`, async () => {
    const actions = checked(name, await helpOf(name));
    for (const action of actions) {
      checked(name, await helpOf(name, [action]));
    }
  });
}

for (const [name, actions] of Object.entries(commands)) {
  test(`claudy ${name} --help explains all its options and actions`, async () => {
    const whole = `claudy ${name}`;
    assert.equal(checked(whole, await helpOf("claudy", [name])), actions);
    for (const action of actions) {
      checked(whole, await helpOf("claudy", [name, action]));
    }
  });
}

for (const name of Object.keys(scripts)) {
  test(`${name} help is ${name} --help`, async () => {
    assert.is(await helpOf(name, ["help"]), await helpOf(name));
  });
}

test("help with an action shows the help of the action", async () => {
  const stop = await helpOf("coordinator", ["help", "stop"]);
  assert.is(stop, await helpOf("coordinator", ["stop"]));
});

test("help shows the effective defaults of settings", async () => {
  const env = {
    WORKER_MEMORY: "8g",
    WORKER_IMAGE: "mine:x",
    MIN_WARM_WORKERS: "7",
  };
  const plain = await helpOf("spawn-worker");
  assert.match(plain, "Memory limit (default: WORKER_MEMORY=4g)");
  assert.match(plain, "Image (default: WORKER_IMAGE, else :worker)");
  const set = await helpOf("spawn-worker", [], env);
  assert.match(set, "Memory limit (default: WORKER_MEMORY=8g)");
  assert.match(set, "CPU limit (default: WORKER_CPUS=2)");
  assert.match(set, "Image (default: WORKER_IMAGE=mine:x)");
  const pool = await helpOf("pool-manager", ["start"], env);
  assert.match(pool, "(default: MIN_WARM_WORKERS=7)");
  // An invalid settings file is reported by the command itself.
  const home = mkdtempSync(join(tmpdir(), "hal9000-help-"));
  mkdirSync(join(home, "config"));
  writeFileSync(join(home, "config", "hal9000.conf"), "nonsense");
  const broken = await helpOf("spawn-worker", [], { HAL9000_HOME: home });
  rmSync(home, { recursive: true });
  assert.match(broken, "Memory limit (default: WORKER_MEMORY)");
});

test("claudy --help lists every command in a group with its meaning", async () => {
  const sections = sectionsOf(await helpOf("claudy"));
  const groups = ["Sessions", "Credentials", "Machine", "Shell"];
  const lines = groups.flatMap((group) => sections.get(group) ?? []);
  const listed = lines.map((line) => {
    assert.match(line, /^ {2}\S.* {2,}\S+.* \S/);
    return line.trim().split(" ")[0];
  });
  assert.equal(listed, ["[directory]", ...Object.keys(commands)]);
});

test("help fits the terminal, and breaks no word", async () => {
  for (const argv of [["--help"], ["help", "run"], ["mcp", "--help"]]) {
    const wide = await runMain(claudy, argv, { columns: 500 });
    const { stdout } = await runMain(claudy, argv, { columns: 80 });
    const long = stdout.split("\n").filter((line) => line.length > 80);
    assert.equal(long, [], argv.join(" "));
    const words = (text: string) => text.split(/\s+/);
    assert.equal(words(stdout), words(wide.stdout));
  }
});

test.run();
