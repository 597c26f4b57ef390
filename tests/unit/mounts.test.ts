// The mounter's system calls that need no privileges.

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

test("closes every descriptor that is opened to inspect a project", ({ root }) => {
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

test("opens nothing through a link or outside of the directory", ({ root }) => {
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

test("a failed copy of mounts leaves no descriptor open", ({ root }) => {
  const directory = openPath(root, "directory");
  const before = open();
  try {
    closeDescriptor(copyMounts(directory, true));
  } catch (error) {
    assert.instance(error, CallError); // only root has permission
  }
  assert.is(open(), before);
  closeDescriptor(directory);
});

test.run();
