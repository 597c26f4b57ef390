// Tests the unit tests: changes lib in one place at a time, at random, and prints each
// change that no unit test detects. SAMPLE, SEED and FILTER (a regex of paths in lib)
// select the changes; BATS=1 also runs the bats files on undetected changes.

import { spawn } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync } from "node:fs";
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { symlinkSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { basename, dirname, join, relative, resolve } from "node:path";
import process from "node:process";
import type { Node } from "typescript/unstable/ast";
import * as is from "typescript/unstable/ast/is";
import { API, type Project } from "typescript/unstable/async";
import {
  changesOf,
  describe,
  type Mutant,
  randomFrom,
  textOf,
} from "./helper/mutants.ts";

/** The bats files that test a folder of lib; others cannot detect its mutants. */
const batsFiles: Record<string, string[]> = {
  std: ["worker", "wrong-uses", "host-files", "terminal"],
  docker: ["worker", "wrong-uses", "terminal"],
  instance: ["worker", "daemon", "ownership", "options"],
  cli: ["options", "wrong-uses", "completion"],
  machine: ["engine", "scripts"],
  helper: ["unwritable", "user"],
  project: ["git", "attacks", "profiles"],
  mcp: ["mcp"],
  image: ["images", "profiles"],
  gateway: ["mcp"],
  home: ["inherit", "credentials", "claude"],
  worker: ["worker", "attacks", "recovery"],
  pool: ["pool", "races"],
  session: ["sessions", "ports"],
  net: ["ports", "daemon"],
  daemon: ["daemon", "recovery"],
  parent: ["recovery", "daemon", "dashboard"],
  migration: ["migration", "migration-faults"],
  doctor: ["doctor"],
  commands: ["sessions", "options", "wrong-uses"],
};

/** A name or an import that is no longer used is no reason to skip a mutant. */
const unusedCodes = [6133, 6192, 6196, 6198];

const root = join(import.meta.dirname ?? "", "..");
const sample = Number(process.env["SAMPLE"] || 60);
const seed = Number(process.env["SEED"] || Date.now() % 1_000_000);
const filter = new RegExp(process.env["FILTER"] || "");
const directory = mkdtempSync(join(tmpdir(), "hal9000-mutation-"));
const running = new Set<ReturnType<typeof spawn>>();

process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
  rmSync(directory, { recursive: true, force: true, maxRetries: 50 });
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => process.exit(130));
}

// deno-lint-ignore no-console
const say = console.log;
say(`Seed ${seed}`);

const mutated = new Map<string, string>();
const api = new API({
  cwd: root,
  fs: { readFile: (path) => mutated.get(path) },
});
const original = await openProject();
const paths = (folder: string) =>
  readdirSync(join(root, folder), { recursive: true })
    .map((name) => join(root, folder, String(name)))
    .filter((path) => path.endsWith(".ts"));
const testFiles = paths("tests/unit");
const imports = new Map<string, string[]>();
for (const path of ["lib", "scripts", "tests"].flatMap(paths)) {
  imports.set(path, importsOf(path, await nodesOf(path)));
}
const mutants = await chooseMutants();
await api.close();

const lanes = Array.from(
  { length: availableParallelism() },
  (_, lane) => makeCopy(join(directory, String(lane))),
);
const tookMs = await timeTests();
const survivors: Mutant[] = [];
const waiting = [...mutants];
await Promise.all(lanes.map(async (copy) => {
  for (let mutant; (mutant = waiting.shift());) {
    if (await withMutant(copy, mutant, unitTestsNotice)) continue;
    survivors.push(mutant);
    say(told(mutant));
  }
}));
let killed = mutants.length - survivors.length;
if (process.env["BATS"]) {
  say(`killed ${killed} by unit tests; the tests on the engine of the others:`);
  for (const mutant of survivors) {
    const noticed = await withMutant(lanes[0] ?? "", mutant, batsNotice);
    if (noticed) killed++;
    say(`${noticed ? "killed" : "survives"} ${told(mutant)}`);
  }
}
const percent = Math.round(killed * 100 / Math.max(mutants.length, 1));
say(
  `killed ${killed} of ${mutants.length} judged (${percent} %), seed ${seed}`,
);
process.exit(0);

async function openProject(): Promise<Project> {
  const snapshot = await api.updateSnapshot({
    openProjects: [join(root, "tsconfig.json")],
    fileChanges: { changed: [...mutated.keys()] },
  });
  const [project] = snapshot.getProjects();
  if (!project) throw new Error("Cannot open tsconfig.json");
  return project;
}

async function nodesOf(path: string): Promise<Node[]> {
  const source = await original.program.getSourceFile(path);
  const found: Node[] = [];
  const visit = (node: Node): void => {
    // Types and imports of types do not exist at run time.
    if (is.isTypeNode(node)) return;
    if (is.isImportDeclaration(node) && isOfTypes(node)) return;
    found.push(node);
    node.forEachChild((child) => void visit(child));
  };
  source?.forEachChild((child) => void visit(child));
  return found;
}

function isOfTypes(node: Node): boolean {
  return /^\s*import\s+type\b/.test(node.getText());
}

/** The files that a file imports, and the programs whose paths it contains. */
function importsOf(path: string, nodes: Node[]): string[] {
  const texts = nodes.filter(is.isStringLiteral).map(({ text }) => text);
  return texts.filter((text) => text.endsWith(".ts")).flatMap((text) =>
    [resolve(dirname(path), text), join(root, text)].filter(existsSync)
  );
}

/** A random choice of mutants that compile. */
async function chooseMutants(): Promise<Mutant[]> {
  const all: Mutant[] = [];
  for (const file of paths("lib").sort()) {
    if (!filter.test(relative(root, file))) continue;
    for (const node of await nodesOf(file)) {
      for (const change of changesOf(node)) all.push({ file, ...change });
    }
  }
  const random = randomFrom(seed);
  const chosen: Mutant[] = [];
  let skipped = 0;
  while (chosen.length < sample && all.length > 0) {
    const [mutant] = all.splice(Math.floor(random() * all.length), 1);
    if (!mutant) break;
    mutated.set(mutant.file, textOf(mutant));
    const { program } = await openProject();
    const faults = [
      ...await program.getSyntacticDiagnostics(mutant.file),
      ...await program.getSemanticDiagnostics(mutant.file),
    ].filter(({ code }) => !unusedCodes.includes(code));
    if (faults.length > 0) skipped++;
    else chosen.push(mutant);
    mutated.set(mutant.file, readFileSync(mutant.file, "utf8"));
  }
  say(`${chosen.length} mutants; ${skipped} that do not compile are left out`);
  return chosen;
}

function told(mutant: Mutant): string {
  return describe(mutant).replace(`${root}/`, "");
}

/** Returns the copy; the temporary directory of its tests lies beside it. */
function makeCopy(lane: string): string {
  const copy = join(lane, "checkout");
  cpSync(root, copy, {
    recursive: true,
    filter: (path) =>
      !["node_modules", "build", "docker/build", ".git"].includes(
        relative(root, path),
      ),
  });
  symlinkSync(join(root, "node_modules"), join(copy, "node_modules"));
  mkdirSync(join(lane, "tmp"));
  return copy;
}

/** How long each test file that is needed takes; those that fail as they are are left out. */
async function timeTests(): Promise<Map<string, number>> {
  const took = new Map<string, number>();
  const alone: string[] = [];
  const time = async (copy: string, file: string) => {
    const began = Date.now();
    if (!await passes(copy, file, 300_000)) return false;
    took.set(file, Date.now() - began);
    return true;
  };
  const rest = [...new Set(mutants.flatMap(testsOf))];
  await Promise.all(lanes.map(async (copy) => {
    for (let file; (file = rest.shift());) {
      if (!await time(copy, file)) alone.push(file);
    }
  }));
  for (const file of alone) {
    if (await time(lanes[0] ?? "", file)) continue;
    say(`${relative(root, file)} fails as it is and is left out`);
  }
  return took;
}

async function withMutant(
  copy: string,
  mutant: Mutant,
  judge: (copy: string, mutant: Mutant) => Promise<boolean>,
): Promise<boolean> {
  const path = join(copy, relative(root, mutant.file));
  writeFileSync(path, textOf(mutant));
  const noticed = await judge(copy, mutant);
  cpSync(mutant.file, path);
  return noticed;
}

/** Runs the fastest files first; a test that hangs has detected the mutant. */
async function unitTestsNotice(copy: string, mutant: Mutant): Promise<boolean> {
  const files = testsOf(mutant).filter((file) => tookMs.has(file))
    .sort((a, b) => (tookMs.get(a) ?? 0) - (tookMs.get(b) ?? 0));
  const path = join(copy, relative(root, mutant.file));
  for (const file of files) {
    const limitMs = 5000 + 3 * (tookMs.get(file) ?? 0);
    if (await passes(copy, file, limitMs)) continue;
    // A test that now also fails without the mutant has not detected it.
    cpSync(mutant.file, path);
    if (await passes(copy, file, limitMs)) return true;
    writeFileSync(path, textOf(mutant));
  }
  return false;
}

/** The test files that import a mutant's file; all if there are none. */
function testsOf({ file }: Mutant): string[] {
  const near = testFiles.filter((test) => reaches(test, file));
  return near.length > 0 ? near : testFiles;
}

function reaches(from: string, to: string, seen = new Set<string>()): boolean {
  if (from === to) return true;
  if (seen.has(from)) return false;
  seen.add(from);
  return (imports.get(from) ?? []).some((next) => reaches(next, to, seen));
}

/**
 * A mutant may delete the wrong files and kill the wrong processes. It sees only its own
 * processes, can write only to its copy and beside it, and finds no engine.
 */
function passes(copy: string, test: string, limitMs: number): Promise<boolean> {
  const confine =
    'mount --bind "$1" "$1" && mount -o remount,bind,ro / && mount -o remount,bind,ro /dev && ' +
    'cd "$1/checkout" && shift && exec "$@"';
  const user = process.getuid?.() === 0 ? [] : ["--map-root-user"];
  const namespaces = ["--mount", "--pid", "--fork", "--kill-child"];
  const command = ["unshare", ...user, ...namespaces, "--mount-proc"];
  const deno = ["node_modules/.bin/deno", "run", "--allow-all", "--no-lock"];
  const uvu = ["node_modules/uvu/bin.js", "tests/unit", `^${basename(test)}$`];
  const lane = dirname(copy);
  const args = ["sh", "-c", confine, "sh", lane, ...deno, ...uvu, "--bail"];
  return run(copy, [...command, ...args], limitMs, {
    TMPDIR: join(lane, "tmp"),
    HOME: join(lane, "tmp"),
    DOCKER_HOST: "unix:///nonexistent/docker.sock",
  });
}

async function batsNotice(copy: string, { file }: Mutant): Promise<boolean> {
  const [, folder = ""] = relative(root, file).split("/");
  for (const name of batsFiles[folder] ?? []) {
    const bats = ["node_modules/bats/bin/bats", `tests/bats/${name}.bats`];
    if (!await run(copy, bats, 30 * 60_000, {})) return true;
  }
  return false;
}

/** Whether a command succeeds in time; one that fails is tried once more. */
async function run(
  cwd: string,
  command: string[],
  limitMs: number,
  env: Record<string, string>,
): Promise<boolean> {
  const once = () => exitCode(cwd, command, limitMs, env);
  const code = await once();
  // Tests that measure time can fail on a busy machine.
  return code === 0 || (code !== null && await once() === 0);
}

/** Null if it took too long. */
function exitCode(
  cwd: string,
  [command = "", ...args]: string[],
  limitMs: number,
  env: Record<string, string>,
): Promise<number | null> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd,
      stdio: "ignore",
      env: { ...process.env, FILTER: "", ...env },
    });
    running.add(child);
    const timer = setTimeout(() => child.kill("SIGKILL"), limitMs);
    child.on("error", reject);
    child.on("close", (code) => {
      clearTimeout(timer);
      running.delete(child);
      resolve(code);
    });
  });
}
