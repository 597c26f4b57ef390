// nsenter's system calls that need no privileges.

import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
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
} from "../../lib/nsenter/privileged/calls.ts";
import { inProcess } from "../../lib/nsenter/privileged/namespaces.ts";

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

test("a process is only found by the mark that it was started with", async () => {
  const mark = "MARK=1f2e";
  const child = spawn("sleep", ["60"], { env: { MARK: "1f2e" } });
  const ended = once(child, "exit");
  try {
    await once(child, "spawn");
    const pid = child.pid ?? 0;
    const before = open();
    const read = (path: string) => readFileSync(`${path}/cmdline`, "utf8");
    assert.match(inProcess({ pid, mark }, read), "sleep\x0060\0");
    for (const other of ["MARK=1f2", "MARK=1f2ea", "1f2e"]) {
      assert.throws(
        () => inProcess({ pid, mark: other }, read),
        /the worker has ended/,
      );
    }
    assert.is(open(), before);
  } finally {
    child.kill("SIGKILL");
    await ended;
  }
});

test("nothing can be opened through a process that has ended", async () => {
  const child = spawn("cat", [], { env: { MARK: "1f2e" } });
  const ended = once(child, "exit");
  await once(child, "spawn");
  const pid = child.pid ?? 0;
  // Until the result arrives the directory stays open, as in the middle of an attach.
  const directory = openPath(`/proc/${pid}`, "directory");
  child.kill("SIGKILL");
  await ended;
  assert.throws(() =>
    readFileSync(`/proc/self/fd/${directory}/environ`, "utf8")
  );
  assert.throws(() =>
    openPath(`/proc/self/fd/${directory}/ns/mnt`, "namespace")
  );
  closeDescriptor(directory);
  const process = { pid, mark: "MARK=1f2e" };
  assert.throws(() => inProcess(process, () => {}), /open: ENOENT/);
});

test.run();
