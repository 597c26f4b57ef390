// The system calls of the mounter, as far as they need no rights.

import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  CallError,
  closeDescriptor,
  copyMounts,
  openBeneath,
  openPath,
} from "../../lib/pool/mounter/mount-calls.ts";

const test = suite<{ root: string }>("mounts");

test.before.each((context) => {
  context.root = mkdtempSync(join(tmpdir(), "hal9000-mounts-"));
  mkdirSync(join(context.root, "a", "b"), { recursive: true });
  symlinkSync("/etc", join(context.root, "out"));
});
test.after.each(({ root }) => rmSync(root, { recursive: true }));

const open = () => readdirSync("/proc/self/fd").length;

test("every descriptor that is opened to look at a project is closed again", ({ root }) => {
  const from = openPath(root, "directory");
  closeDescriptor(from);
  const before = open();
  for (let count = 0; count < 5; count++) {
    const directory = openPath(root, "directory");
    const beneath = openBeneath(directory, "a/b");
    assert.ok(beneath > directory);
    closeDescriptor(beneath);
    closeDescriptor(directory);
    closeDescriptor(openPath("/proc/self/ns/mnt", "namespace"));
  }
  assert.is(open(), before);
});

test("nothing is opened through a link, or above the directory", ({ root }) => {
  const directory = openPath(root, "directory");
  const before = open();
  for (const path of ["out", "out/ssl", "..", "a/../..", "/etc", "gone"]) {
    assert.throws(
      () => openBeneath(directory, path),
      (error: unknown) => error instanceof CallError,
    );
  }
  closeDescriptor(openBeneath(directory, ""));
  closeDescriptor(openBeneath(directory, "a/../a/b"));
  assert.is(open(), before);
  closeDescriptor(directory);
});

test("a copy of mounts that cannot be made leaves no descriptor behind", ({ root }) => {
  const directory = openPath(root, "directory");
  const before = open();
  try {
    closeDescriptor(copyMounts(directory, true));
  } catch (error) {
    assert.instance(error, CallError); // only root may
  }
  assert.is(open(), before);
  closeDescriptor(directory);
});

test.run();
