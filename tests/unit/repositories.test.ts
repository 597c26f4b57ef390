import {
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { findRepositories } from "../../lib/project/repositories.ts";

interface Context {
  root: string;
}

const test = suite<Context>("repositories");
const limits = { maxDirectories: 100, maxEntries: 1000, maxDepth: 3 };

test.before.each((context) => {
  context.root = mkdtempSync(join(tmpdir(), "repositories-"));
});
test.after.each(({ root }) => rmSync(root, { recursive: true }));

const make = (root: string, ...paths: string[]) =>
  paths.forEach((path) => mkdirSync(join(root, path), { recursive: true }));

test("findRepositories() finds nested and bare ones, submodules and .git files", ({ root }) => {
  make(
    root,
    ".git/objects",
    ".git/refs",
    "a/b/.git",
    "bare/objects",
    "bare/refs",
  );
  make(root, ".git/modules/libs/x/objects", ".git/modules/libs/x/refs");
  make(
    root,
    ".git/modules/libs/x/modules/y/objects",
    ".git/modules/libs/x/modules/y/refs",
  );
  make(root, "node_modules/z/.git", "tree", "c/d/e/.git");
  writeFileSync(join(root, "tree/.git"), "gitdir: x");
  const found = findRepositories(root, { ...limits, maxDepth: 9 });
  assert.equal(found.directories.toSorted(), [
    ".git",
    ".git/modules/libs/x",
    ".git/modules/libs/x/modules/y",
    "a/b/.git",
    "bare",
    "c/d/e/.git",
  ]);
  assert.equal(found.files, ["tree/.git"]);
  assert.ok(found.complete);
});

test("findRepositories() follows no link", ({ root }) => {
  make(root, "out/.git", "in");
  symlinkSync(join(root, "out"), join(root, "in/linked"));
  symlinkSync(join(root, "out/.git"), join(root, "in/.git"));
  assert.equal(findRepositories(join(root, "in"), limits), {
    directories: [],
    files: [],
    complete: true,
  });
  assert.equal(
    findRepositories(join(root, "in/linked"), limits).directories,
    [],
  );
});

test("findRepositories() is bounded in depth, directories and entries", ({ root }) => {
  make(root, ".git", "a/b/c/d/e/.git");
  for (
    const tighter of [{ maxDepth: 3 }, { maxDirectories: 2 }, { maxEntries: 1 }]
  ) {
    const found = findRepositories(root, {
      ...limits,
      maxDepth: 9,
      ...tighter,
    });
    assert.equal(found.directories, [".git"], JSON.stringify(tighter));
    assert.not.ok(found.complete);
  }
});

test.run();
