import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { bundleScripts } from "../../lib/machine/bundle.ts";
import { checkout } from "../../lib/std/checkout.ts";
import { sourceDigest } from "../../lib/std/build-digest.ts";

test("sourceDigest() depends on the sources, not on their location", () => {
  const root = mkdtempSync(join(tmpdir(), "hal9000-digest-"));
  const one = join(root, "one");
  for (const name of ["docker/build", "lib/inner", "scripts"]) {
    mkdirSync(join(one, name), { recursive: true });
  }
  for (const name of ["package.json", "package-lock.json", "lib/inner/a.ts"]) {
    writeFileSync(join(one, name), name);
  }
  const two = join(root, "two");
  const staged = join(two, "docker/build/claude.js");
  cpSync(one, two, { recursive: true });
  assert.match(sourceDigest(one), /^[0-9a-f]{8}$/);
  writeFileSync(staged, "built from the sources");
  symlinkSync("gone", join(two, "docker/link.sh"));
  assert.is(sourceDigest(one), sourceDigest(two));
  writeFileSync(join(two, "lib/inner/a.ts"), "other");
  assert.is.not(sourceDigest(one), sourceDigest(two));
  rmSync(root, { recursive: true });
});

test("a bundle does not depend on the working directory", async () => {
  const root = mkdtempSync(join(tmpdir(), "hal9000-bundle-"));
  const own = process.cwd();
  const bundled = async (cwd: string, name: string) => {
    process.chdir(cwd);
    try {
      // It uses the engine's API.
      const source = join(checkout, "lib/parent/healthcheck.ts");
      await bundleScripts(checkout, [source], join(root, name));
    } finally {
      process.chdir(own);
    }
    return readFileSync(join(root, name, "healthcheck.js"), "utf8");
  };
  const text = await bundled(checkout, "one");
  assert.match(text, "dockerode");
  assert.ok(text === await bundled(root, "two"));
  rmSync(root, { recursive: true });
});

test.run();
