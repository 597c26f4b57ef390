// Packages of the engine's platform, compared with the lockfile.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { checkIntegrity } from "../../lib/image/packages.ts";

const test = suite("packages");

test("a package that differs from the lockfile is refused", async () => {
  const root = mkdtempSync(join(tmpdir(), "hal9000-package-"));
  const file = join(root, "package.tgz");
  writeFileSync(file, "hello\n");
  // printf 'hello\n' | openssl dgst -sha256 -binary | base64
  const right = "sha256-WJG1tSLV3whtD/CxEPvZ0hu0/HFjrzTQgoai6Eb2vgM=";
  const of = (integrity: string) =>
    checkIntegrity(file, integrity, "pkg").catch((error) => error.message);
  const refusal = "Cannot fetch pkg: what npm has differs from the lockfile";
  try {
    assert.is(await of(right), undefined);
    assert.is(await of(right.replace("W", "X")), refusal);
    assert.is(await of(""), refusal);
  } finally {
    rmSync(root, { recursive: true });
  }
});

test.run();
