import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { firstFileIn } from "../../lib/worker/net-files.ts";

const test = suite("net-files");

test("firstFileIn() returns the file in an archive, with or without attributes", () => {
  const directory = mkdtempSync(join(tmpdir(), "hal9000-tar-"));
  writeFileSync(join(directory, "hosts"), "127.0.0.1 localhost\n");
  for (const format of ["ustar", "pax", "gnu"]) {
    const archive = execFileSync("tar", [
      "-cf-",
      `--format=${format}`,
      "-C",
      directory,
      "hosts",
    ]);
    assert.is(firstFileIn(archive).toString(), "127.0.0.1 localhost\n");
  }
  rmSync(directory, { recursive: true });
});

test("firstFileIn() refuses truncated and invalid archives", () => {
  const junk = readFileSync("/proc/self/status");
  assert.throws(() => firstFileIn(junk), /no file in the archive/);
  assert.throws(() => firstFileIn(junk.subarray(0, 10)), /no file/);
});

test.run();
