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
import {
  guardOf,
  type GuardRequest,
  startLimits,
} from "../../lib/project/guard.ts";
import { findRepositories } from "../../lib/project/repositories.ts";
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

function guardRequest(app: string, others: Partial<GuardRequest> = {}) {
  const project = lookAt(app, view) as HostPath;
  return guardOf({
    project,
    repository: undefined,
    repositories: findRepositories(app, startLimits).directories,
    mounts: [],
    view,
    keep: (text) => ({ ...project, path: `/kept/${text}` }),
    ...others,
  });
}

function guarded(app: string, others: Partial<GuardRequest> = {}) {
  return guardRequest(app, others).mounts.map(({ target, readOnly }) =>
    readOnly ? `${target}:ro` : target
  )
    .toSorted();
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

test("guardOf() protects nested repositories, and submodules without their core.worktree", ({ app }) => {
  repository(join(app, "a/b"));
  const module = join(app, ".git/modules/libs/x");
  for (const name of ["objects", "refs", "hooks"]) {
    mkdirSync(join(module, name), { recursive: true });
  }
  writeFileSync(join(module, "HEAD"), "ref: refs/heads/main\n");
  const config = "[core]\n\tbare = false\n\tworktree = ../../../../libs/x\n";
  writeFileSync(join(module, "config"), config);
  assert.equal(guarded(app), [
    "/workspace/.git",
    "/workspace/.git/config:ro",
    "/workspace/.git/hooks:ro",
    "/workspace/.git/modules/libs/x/config:ro",
    "/workspace/.git/modules/libs/x/hooks:ro",
    "/workspace/a/b/.git/config:ro",
    "/workspace/a/b/.git/hooks:ro",
  ]);
  const { mounts } = guardRequest(app);
  assert.is(
    mounts.find(({ target }) => target.endsWith("x/config"))?.source,
    "/kept/[core]\n\tbare = false\n",
  );
});

test("guardOf() protects what the configuration and links of hooks name in the project", ({ app }) => {
  mkdirSync(join(app, "tools"));
  mkdirSync(join(app, ".git/hooks"));
  for (const name of [".envrc", "tools/lint", "tools/config", "hooks"]) {
    writeFileSync(join(app, name), "");
  }
  symlinkSync("../../tools/lint", join(app, ".git/hooks/pre-push"));
  symlinkSync("/etc/passwd", join(app, ".git/hooks/pre-commit"));
  writeFileSync(
    join(app, ".git/config"),
    "[core]\n\thooksPath = hooks\n[include]\n\tpath = ../tools/config\n\tpath = ~/x\n" +
      "[extensions]\n\tworktreeConfig = true\n",
  );
  assert.equal(guarded(app), [
    "/workspace/.envrc:ro",
    "/workspace/.git",
    "/workspace/.git/config.worktree:ro",
    "/workspace/.git/config:ro",
    "/workspace/.git/hooks:ro",
    "/workspace/hooks:ro",
    "/workspace/tools/config:ro",
    "/workspace/tools/lint:ro",
  ]);
});

test("guardOf() reports more repositories than it protects", ({ app }) => {
  for (let count = 0; count < 40; count++) repository(join(app, `r${count}`));
  const { mounts, notices } = guardRequest(app);
  assert.is(mounts.length, 3 + 2 * 32);
  assert.match(notices.join(), "contains 40 git repositories");
});

test.run();
