import {
  appendFileSync,
  chmodSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { startLimits } from "../../lib/project/guard.ts";
import {
  plantedLines,
  plantedSince,
  takeSnapshot,
} from "../../lib/project/planted.ts";
import { findRepositories } from "../../lib/project/repositories.ts";

interface Context {
  app: string;
}

const test = suite<Context>("planted");
const view = { mount: "", roots: undefined };

test.before.each((context) => {
  context.app = realpathSync(mkdtempSync(join(tmpdir(), "planted-")));
  write(context.app, ".git/HEAD", "ref: refs/heads/main\n");
  write(
    context.app,
    ".git/config",
    "[core]\n\tbare = false\n[alias]\n\tst = !status\n",
  );
  write(context.app, ".git/hooks/pre-commit", "#!/bin/sh\n");
  write(context.app, ".git/hooks/pre-push.sample", "");
  write(context.app, ".vscode/tasks.json", "{}");
  symlinkSync("../../lint", join(context.app, ".git/hooks/pre-push"));
  write(context.app, "lint", "#!/bin/sh\n");
});
test.after.each(({ app }) => rmSync(app, { recursive: true }));

function write(root: string, name: string, text: string): void {
  mkdirSync(dirname(join(root, name)), { recursive: true });
  writeFileSync(join(root, name), text);
}

function snapshot(app: string, limits = startLimits, guarded = true) {
  return takeSnapshot(
    app,
    undefined,
    view,
    findRepositories(app, limits),
    guarded,
  );
}

function added(before: ReturnType<typeof snapshot>): string[] {
  return plantedSince(before, view).files.map(({ path }) => path).toSorted();
}

test("plantedSince() finds nothing in a project that has not changed", ({ app }) => {
  const before = snapshot(app);
  write(app, "Makefile", "all:\n\tevil\n");
  write(app, ".git/hooks/pre-commit.sample", "evil");
  write(app, "other/.git/HEAD", "ref: refs/heads/main\n");
  write(
    app,
    "other/.git/config",
    '[remote "origin"]\n\turl = https://example.com\n',
  );
  write(app, "sub/.git", "gitdir: ../.git/modules/sub\n");
  appendFileSync(join(app, ".git/config"), "[user]\n\tname = a\n");
  assert.equal(added(before), []);
  assert.equal(plantedLines(app, plantedSince(before, view)), []);
});

test("plantedSince() finds what was added or changed", ({ app }) => {
  const before = snapshot(app);
  appendFileSync(join(app, ".git/config"), "[core]\n\tfsmonitor = evil\n");
  write(app, ".git/hooks/pre-commit", "evil");
  write(app, "lint", "evil");
  write(app, ".git/commondir", "../evil\n");
  write(app, ".git/config.worktree", "[core]\n\tpager = evil\n");
  write(app, "other/.git/config", "[core]\n\thooksPath = evil\n");
  write(app, "bare/config", "[core]\n\tfsmonitor = evil\n");
  mkdirSync(join(app, "bare/objects"));
  mkdirSync(join(app, "bare/refs"));
  write(app, "sub/.git", "gitdir: ../bare\n");
  write(app, ".envrc", "evil");
  write(app, ".pre-commit-config.yaml", "evil");
  write(app, ".idea/a/b/c.xml", "evil");
  assert.equal(added(before), [
    ".envrc",
    ".git/commondir",
    ".git/config",
    ".git/config.worktree",
    ".git/hooks/pre-commit",
    ".git/hooks/pre-push",
    ".idea/a/b/c.xml",
    ".pre-commit-config.yaml",
    "bare/config",
    "other/.git/config",
    "sub/.git",
  ]);
});

test("plantedSince() leaves out editors' directories that the worker could not change", ({ app }) => {
  const [guarded, open] = [snapshot(app), snapshot(app, startLimits, false)];
  write(app, ".vscode/settings.json", "{}");
  assert.equal(added(guarded), []);
  assert.equal(added(open), [".vscode/settings.json"]);
});

test("plantedSince() follows no link, and survives anything in a project", ({ app }) => {
  const before = snapshot(app);
  mkdirSync(join(app, "real/objects"), { recursive: true });
  mkdirSync(join(app, "real/refs"));
  mkdirSync(join(app, "linked"));
  symlinkSync(join(app, ".git"), join(app, "linked/.git"));
  symlinkSync("/etc", join(app, ".husky"));
  symlinkSync(".envrc", join(app, ".envrc"));
  symlinkSync("config", join(app, "real/config"));
  mkdirSync(join(app, "mise.toml"));
  mkdirSync(join(app, "closed"));
  chmodSync(join(app, "closed"), 0);
  let deep = app;
  for (let depth = 0; depth < 30; depth++) mkdirSync(deep = join(deep, "d"));
  assert.equal(added(before), []);
});

test("plantedLines() escapes names, limits their number, and names what is unknown", ({ app }) => {
  for (const name of ["a", "b", "c"]) mkdirSync(join(app, name));
  const before = snapshot(app, { ...startLimits, maxDirectories: 2 });
  for (let count = 0; count < 30; count++) {
    write(app, `r\u001b[31m${count}/.git/config`, "[alias]\n\ta = !evil\n");
  }
  const [first = "", ...rest] = plantedLines(app, plantedSince(before, view));
  assert.match(first, "too deep to be seen then");
  assert.is(rest.length, 21);
  assert.match(rest[0] ?? "", "r\\x1b[31m");
  assert.match(rest[20] ?? "", "and 10 more");
});

test("plantedSince() reads a bounded part of what a worker has created", ({ app }) => {
  const before = snapshot(app);
  const long = `[${"a".repeat(100_000)}]\nb\n`;
  for (let count = 0; count < 300; count++) {
    write(app, `r/${count}/.git/config`, `${long}${"#".repeat(300_000)}`);
  }
  const planted = plantedSince(before, view);
  assert.match(
    plantedLines(app, planted)[0] ?? "",
    "more hooks and repositories",
  );
  assert.ok(planted.files.length > 150 && planted.files.length < 200);
  assert.ok((planted.files[0]?.what.length ?? 0) < 100);
});

test.run();
