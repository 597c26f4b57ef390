// Files and directories with owners.

import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  chownTree,
  ensureDirectory,
  ensureOwner,
  isStaged,
  keepNewest,
  openForOutput,
  ownerOf,
  replaceFile,
  stageFile,
  writeAtomic,
  writeNew,
} from "../../lib/std/owned.ts";

const test = suite<{ root: string }>("owned");
const isRoot = process.getuid?.() === 0;
const other = { uid: 12345, gid: 12346 };

test.before.each((context) => {
  context.root = mkdtempSync(join(tmpdir(), "hal9000-owned-"));
});
test.after.each(({ root }) => rmSync(root, { recursive: true }));

/** The owner of a path, without following a link. */
function owners(path: string) {
  const { uid, gid } = lstatSync(path);
  return { uid, gid };
}

test("chownTree() changes the owner of every file, and follows no links", ({ root }) => {
  if (!isRoot) return; // only root can change owners
  const tree = join(root, "tree");
  mkdirSync(join(tree, "deep"), { recursive: true });
  writeFileSync(join(tree, "deep", "file"), "");
  const outside = join(root, "outside");
  writeFileSync(outside, "");
  symlinkSync(outside, join(tree, "link"));
  ensureOwner(tree, ownerOf(tree));
  assert.equal(owners(join(tree, "deep", "file")), ownerOf(root));
  ensureOwner(tree, other);
  for (const name of [".", "deep", "deep/file", "link"]) {
    assert.equal(owners(join(tree, name)), other, name);
  }
  assert.equal(owners(outside), ownerOf(root));
  const file = join(root, "file");
  writeFileSync(file, "");
  chownTree(file, other);
  assert.equal(owners(file), other);
});

test("ensureOwner() changes a tree with the right user and the wrong group", ({ root }) => {
  if (!isRoot) return;
  const { uid } = ownerOf(root);
  writeFileSync(join(root, "file"), "");
  ensureOwner(root, { uid, gid: other.gid });
  assert.equal(owners(join(root, "file")), { uid, gid: other.gid });
});

test("chownTree() reports the path that it cannot change", ({ root }) => {
  assert.throws(
    () => chownTree(join(root, "gone"), other),
    /^Cannot chown .*gone to uid 12345: .*gone/,
  );
});

test("files that root creates belong to the given owner", ({ root }) => {
  if (!isRoot) return;
  ensureDirectory(join(root, "directory"), 0o700, other);
  writeAtomic(join(root, "file"), "", other);
  assert.equal(owners(join(root, "directory")), other);
  assert.equal(owners(join(root, "file")), other);
});

test("the output of a child is appended or replaced, in a file of the owner", ({ root }) => {
  const path = join(root, "log");
  const write = (flags: "w" | "a", text: string) => {
    const file = openForOutput(path, flags, isRoot ? other : ownerOf(root));
    writeFileSync(file, text);
    closeSync(file);
  };
  write("a", "one\n");
  write("a", "two\n");
  assert.is(readFileSync(path, "utf8"), "one\ntwo\n");
  assert.is(statSync(path).mode & 0o777, 0o600);
  if (isRoot) assert.equal(owners(path), other);
  write("w", "three\n");
  assert.is(readFileSync(path, "utf8"), "three\n");
});

test("an existing directory keeps its owner, and a new one is not affected by the umask", ({ root }) => {
  const path = join(root, "directory");
  const before = process.umask(0o077);
  try {
    ensureDirectory(path, 0o755, ownerOf(root));
  } finally {
    process.umask(before);
  }
  assert.is(statSync(path).mode & 0o777, 0o755);
  if (!isRoot) return;
  ensureDirectory(path, 0o755, other);
  assert.equal(owners(path), ownerOf(root));
});

test("a failed write names the file that was to be written", ({ root }) => {
  const path = join(root, "file");
  const wrong = 7 as unknown as string;
  try {
    stageFile(path, wrong, ownerOf(root));
    assert.unreachable();
  } catch (error) {
    assert.is((error as { path?: string }).path, path);
  }
  assert.equal(readdirSync(root), []);
});

test("only names of temporary files are taken for those", () => {
  assert.ok(isStaged("x.json.0123456789abcdef.tmp"));
  for (
    const name of [
      "x.json.0123456789abcde.tmp",
      "x.json.0123456789abcdeg.tmp",
      "x.0123456789abcdef.tmp.json",
      "x.tmp",
    ]
  ) {
    assert.not.ok(isStaged(name), name);
  }
});

test("the owner of a missing path is this user", ({ root }) => {
  assert.equal(ownerOf(join(root, "gone")), {
    uid: process.getuid?.() ?? -1,
    gid: process.getgid?.() ?? -1,
  });
});

test("ensureDirectory() sets the mode of new and existing directories", ({ root }) => {
  const path = join(root, "directory");
  const mode = () => statSync(path).mode & 0o7777;
  assert.is(ensureDirectory(path, 0o750, ownerOf(root)), true);
  assert.is(mode(), 0o750);
  assert.is(ensureDirectory(path, 0o700, ownerOf(root)), false);
  assert.is(mode(), 0o700);
});

test("ensureDirectory() refuses a path that is not a directory", ({ root }) => {
  const owner = ownerOf(root);
  writeFileSync(join(root, "file"), "");
  symlinkSync(root, join(root, "link"));
  const make = (name: string) =>
    ensureDirectory(join(root, name), 0o700, owner);
  assert.throws(() => make("file"), /file" is not a directory/);
  assert.throws(() => make("link"), /link" is a link/);
  assert.throws(() => make("gone/deep"), /ENOENT/);
});

test("stageFile() does not change the file before its commit", ({ root }) => {
  const path = join(root, "file");
  writeFileSync(path, "old");
  const staged = stageFile(path, "new", ownerOf(root), { mode: 0o640 });
  assert.ok(isStaged(staged.path));
  assert.is(readFileSync(path, "utf8"), "old");
  staged.commit();
  assert.is(readFileSync(path, "utf8"), "new");
  assert.is(statSync(path).mode & 0o777, 0o640);
  assert.equal(readdirSync(root), ["file"]);
  stageFile(path, "newer", ownerOf(root)).drop();
  assert.equal(readdirSync(root), ["file"]);
  assert.is(readFileSync(path, "utf8"), "new");
});

test("a failed commit leaves no temporary file", ({ root }) => {
  const path = join(root, "directory");
  mkdirSync(join(path, "full"), { recursive: true });
  assert.throws(() => writeAtomic(path, "", ownerOf(root)), /EISDIR|ENOTEMPTY/);
  assert.equal(readdirSync(root), ["directory"]);
  replaceFile(path, "text", ownerOf(root));
  assert.is(readFileSync(path, "utf8"), "text");
});

test("writeNew() replaces nothing", ({ root }) => {
  const path = join(root, "file");
  assert.is(writeNew(path, "one", ownerOf(root)), true);
  assert.is(writeNew(path, "two", ownerOf(root)), false);
  assert.is(readFileSync(path, "utf8"), "one");
  assert.equal(readdirSync(root), ["file"]);
  assert.throws(() => writeNew(join(root, "gone", "x"), "", ownerOf(root)));
});

test("keepNewest() removes only the oldest files of its extension", ({ root }) => {
  for (const [at, name] of ["c.log", "a.log", "b.log", "old.txt"].entries()) {
    writeFileSync(join(root, name), "");
    utimesSync(join(root, name), at + 1, at + 1);
  }
  mkdirSync(join(root, "directory.log"));
  utimesSync(join(root, "directory.log"), 0, 0);
  keepNewest(root, ".log", 2);
  assert.equal(
    readdirSync(root).sort(),
    ["a.log", "b.log", "directory.log", "old.txt"],
  );
  keepNewest(join(root, "gone"), ".log", 0);
  assert.ok(existsSync(root));
});

test.run();
