import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";

/** What runs as soon as it is loaded: it says so in its last lines. */
function isProgram(path: string): boolean {
  const text = readFileSync(path, "utf8");
  return text.startsWith("#!") ||
    /^(await |void |process\.|main\(|runCli\(|\w+\(.*\)\.catch)/m.test(text);
}

test("loading a module of lib writes nothing, runs nothing and reaches nobody", () => {
  const lib = resolve("lib");
  const modules = readdirSync(lib, { recursive: true })
    .map((name) => join(lib, String(name)))
    .filter((path) => path.endsWith(".ts") && !isProgram(path));
  assert.ok(modules.length > 150);
  const script = modules.map((path) => `import ${JSON.stringify(path)};\n`);
  // Whatever is not granted here is refused, and the load fails.
  const granted = ["--allow-read", "--allow-env", "--allow-sys"];
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ["run", "--no-prompt", "--no-lock", "--quiet", ...granted, "--ext=ts", "-"],
    { input: script.join(""), encoding: "utf8" },
  );
  assert.is(stderr, "");
  assert.is(stdout, "");
  assert.is(status, 0);
});

test.run();
