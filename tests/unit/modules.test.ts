import { spawnSync } from "node:child_process";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join, resolve } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";

/** Programs that run when they are loaded, according to their last lines. */
function isProgram(path: string): boolean {
  const text = readFileSync(path, "utf8");
  return text.startsWith("#!") ||
    /^(await |void |process\.|main\(|runCli\(|\w+\(.*\)\.catch)/m.test(text);
}

test("loading a module of lib writes no files, runs nothing and opens no connections", () => {
  const lib = resolve("lib");
  const modules = readdirSync(lib, { recursive: true })
    .map((name) => join(lib, String(name)))
    .filter((path) => path.endsWith(".ts") && !isProgram(path));
  assert.ok(modules.length > 150);
  const script = modules.map((path) => `import ${JSON.stringify(path)};\n`);
  // Permissions that are not granted are denied, and loading fails.
  const granted = ["--allow-read", "--allow-env", "--allow-sys"];
  // From a file: Deno does not say why it could not write to a process that has ended.
  mkdirSync("build", { recursive: true });
  const folder = mkdtempSync(resolve("build/modules-"));
  const program = join(folder, "all.ts");
  writeFileSync(program, script.join(""));
  const { error, status, stdout, stderr } = spawnSync(
    process.execPath,
    ["run", "--no-prompt", "--no-lock", "--quiet", ...granted, program],
    { encoding: "utf8" },
  );
  rmSync(folder, { recursive: true });
  assert.is(error, undefined);
  assert.is(stderr, "");
  assert.is(stdout, "");
  assert.is(status, 0);
});

test.run();
