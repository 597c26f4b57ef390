import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
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

test.run();
