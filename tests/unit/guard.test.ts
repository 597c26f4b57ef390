import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { guardOf } from "../../lib/project/guard.ts";
import { type HostPath, lookAt } from "../../lib/std/hostpath.ts";

interface Context {
  app: string;
}

const test = suite<Context>("guard");
const view = { mount: "", roots: undefined };

test.before.each((context) => {
  context.app = join(
    realpathSync(mkdtempSync(join(tmpdir(), "guard-"))),
    "app",
  );
  repository(context.app);
});
test.after.each(({ app }) => rmSync(join(app, ".."), { recursive: true }));

function repository(path: string): void {
  mkdirSync(join(path, ".git"), { recursive: true });
  writeFileSync(join(path, ".git/HEAD"), "ref: refs/heads/main\n");
}

function guarded(
  app: string,
  others: Partial<Parameters<typeof guardOf>[0]> = {},
) {
  const project = lookAt(app, view) as HostPath;
  return guardOf({
    project,
    repository: undefined,
    mounts: [],
    view,
    ...others,
  }).mounts.map(({ target, readOnly }) => readOnly ? `${target}:ro` : target);
}

const ofApp = [
  "/workspace/.git",
  "/workspace/.git/config:ro",
  "/workspace/.git/hooks:ro",
];

test("guardOf() protects git's hooks and configuration, which it creates if missing", ({ app }) => {
  assert.equal(guarded(app), ofApp);
  assert.ok(existsSync(join(app, ".git/hooks")));
  assert.ok(existsSync(join(app, ".git/config")));
  assert.equal(guarded(app), ofApp);
});

test("guardOf() mounts nothing through a link", ({ app }) => {
  mkdirSync(join(app, "../elsewhere"));
  symlinkSync("../../elsewhere", join(app, ".git/hooks"));
  assert.equal(guarded(app), ofApp.slice(0, 2));
  assert.equal(guarded(join(app, "../elsewhere")), []);
});

test("guardOf() protects all places where a worker can write a repository", ({ app }) => {
  const mounts = [
    { source: app, target: "/home/me/app", readOnly: false },
    { source: join(app, ".."), target: "/all", readOnly: true },
    { source: "/empty", target: "/workspace/.git", readOnly: false },
  ];
  assert.equal(guarded(app, { mounts }), [
    "/home/me/app/.git",
    "/home/me/app/.git/config:ro",
    "/home/me/app/.git/hooks:ro",
  ]);
});

test("guardOf() protects a worktree's .git file and its repository", ({ app }) => {
  const tree = join(app, "../tree");
  mkdirSync(tree);
  writeFileSync(join(tree, ".git"), `gitdir: ${app}/.git/worktrees/tree\n`);
  const repository = join(app, ".git");
  const mounts = [{ source: repository, target: repository, readOnly: false }];
  assert.equal(guarded(tree, { repository, mounts }), [
    `${repository}/config:ro`,
    `${repository}/hooks:ro`,
    "/workspace/.git:ro",
  ]);
});

test.run();
