import { execFileSync } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  type HostPath,
  type HostView,
  lookAt,
} from "../../lib/std/hostpath.ts";
import { projectGit } from "../../lib/project/project-git.ts";

interface Context {
  root: string;
  main: string;
  tree: string;
  own: string;
}

const test = suite<Context>("project-git");
const view: HostView = { mount: "", roots: undefined };

function git(directory: string, ...args: string[]): void {
  const identity = ["-c", "user.name=a", "-c", "user.email=a@b"];
  const files = ["-c", "protocol.file.allow=always"];
  execFileSync("git", ["-C", directory, ...identity, ...files, ...args], {
    stdio: "pipe",
    env: { ...process.env, GIT_CONFIG_GLOBAL: "/dev/null" },
  });
}

function repository(path: string): string {
  mkdirSync(path, { recursive: true });
  git(path, "init", "--quiet");
  git(path, "commit", "--quiet", "--allow-empty", "-m", "first");
  return path;
}

function gitOf(path: string, refusal: (path: string) => string | undefined) {
  return projectGit(lookAt(path, view) as HostPath, view, refusal);
}

const anything = (_: string): string | undefined => undefined;

function refusedFor(path: string, refusal = anything) {
  const { mounts, outside, notices } = gitOf(path, refusal);
  assert.equal(mounts, []);
  assert.is(outside, undefined);
  return notices.join("\n");
}

function targets(path: string) {
  return gitOf(path, anything).mounts
    .map(({ target, readOnly }) => `${target}${readOnly ? ":ro" : ""}`);
}

const template = realpathSync(mkdtempSync(join(tmpdir(), "hal9000-git-")));

test.before(() => {
  const main = repository(join(template, "main"));
  git(main, "worktree", "add", "--quiet", "-b", "one", join(template, "tree"));
  repository(join(template, "library"));
});

test.after(() => rmSync(template, { recursive: true }));

test.before.each((context) => {
  const root = realpathSync(mkdtempSync(join(tmpdir(), "hal9000-git-")));
  cpSync(template, root, { recursive: true });
  const main = join(root, "main");
  const tree = join(root, "tree");
  const own = join(main, ".git/worktrees/tree");
  writeFileSync(join(tree, ".git"), `gitdir: ${own}\n`);
  writeFileSync(join(own, "gitdir"), `${tree}/.git\n`);
  Object.assign(context, { root, main, own, tree });
});

test.after.each(({ root }) => rmSync(root, { recursive: true }));

test("projectGit() mounts a worktree's repository where git looks for it", ({ main, tree, own }) => {
  const { mounts, outside, notices } = gitOf(tree, anything);
  assert.is(outside, join(main, ".git"));
  assert.equal(notices, []);
  assert.equal(
    mounts.map(({ source, readOnly }) => [source, readOnly]),
    [
      [tree, false],
      [join(main, ".git"), false],
      [join(main, ".git/worktrees"), true],
      [own, false],
    ],
  );
  for (const { source, target, inode } of mounts) {
    assert.is(source, target);
    assert.is(inode, lookAt(source, view)?.inode);
  }
});

test("projectGit() supports the relative paths of newer versions of git", ({ root, main, tree, own }) => {
  writeFileSync(join(tree, ".git"), `gitdir: ${relative(tree, own)}\n`);
  writeFileSync(join(own, "gitdir"), `${relative(own, join(tree, ".git"))}\n`);
  symlinkSync(root, join(root, "alias"));
  assert.is(gitOf(join(root, "alias/tree"), anything).outside, `${main}/.git`);
});

const broken: [what: string, why: RegExp, change: (at: Context) => void][] = [
  [
    "the registration of another directory",
    /registered for another directory/,
    ({ own }) => {
      writeFileSync(join(own, "gitdir"), "/elsewhere/.git\n");
    },
  ],
  ["a commondir with another target", /commondir/, ({ root, own }) => {
    writeFileSync(join(own, "commondir"), `${root}\n`);
  }],
  ["no commondir", /commondir/, ({ own }) => {
    rmSync(join(own, "commondir"));
  }],
  ["no HEAD", /HEAD/, ({ own }) => {
    writeFileSync(join(own, "HEAD"), "nonsense\n");
  }],
  ["a commondir with two lines", /commondir/, ({ own }) => {
    writeFileSync(join(own, "commondir"), "../..\n/etc\n");
  }],
  ["a repository without objects", /not a git directory/, ({ main }) => {
    rmSync(join(main, ".git/objects"), { recursive: true });
  }],
  ["a missing git directory", /cannot be accessed/, ({ own }) => {
    rmSync(own, { recursive: true });
  }],
  ["a repository around the project", /contains the project/, (at) => {
    const around = join(at.root, "around");
    renameSync(join(at.main, ".git"), around);
    renameSync(at.tree, join(around, "tree"));
    at.tree = join(around, "tree");
    writeFileSync(
      join(at.tree, ".git"),
      `gitdir: ${around}/worktrees/tree\n`,
    );
    writeFileSync(join(around, "worktrees/tree/gitdir"), `${at.tree}/.git\n`);
  }],
  ["a link instead of its directory", /"worktrees"|commondir/, (at) => {
    renameSync(at.own, join(at.root, "own"));
    symlinkSync(join(at.root, "own"), at.own);
  }],
];

for (const [what, why, change] of broken) {
  test(`projectGit() mounts nothing for a worktree with ${what}`, (context) => {
    change(context);
    assert.match(refusedFor(context.tree), why);
  });
}

test("projectGit() does not mount a refused repository", ({ main, tree }) => {
  const reason = refusedFor(
    tree,
    (path) => path === `${main}/.git` ? "it is a secret" : undefined,
  );
  assert.match(reason, "main/.git: it is a secret");
});

test("projectGit() mounts nothing for a repository inside the project", ({ root, tree }) => {
  rmSync(join(tree, ".git"));
  cpSync(join(root, "main/.git"), join(tree, ".bare"), { recursive: true });
  writeFileSync(join(tree, ".git"), "gitdir: ./.bare\n");
  assert.is(refusedFor(tree), "");
});

test("projectGit() refuses an invalid .git file", ({ tree }) => {
  for (const text of ["", "x\ngitdir: /y", "gitdir: /y\nz", "gitdir: \n"]) {
    writeFileSync(join(tree, ".git"), text);
    assert.match(refusedFor(tree), "is not a valid .git file");
  }
});

test("projectGit() protects the host's other worktrees in their main checkout", ({ main }) => {
  assert.equal(targets(main), ["/workspace/.git/worktrees/tree:ro"]);
});

test("projectGit() mounts the project at the host's path for worktrees inside it", ({ main, own }) => {
  git(main, "worktree", "add", "--quiet", "-b", "in", join(main, ".trees/in"));
  assert.equal(targets(main), ["/workspace/.git/worktrees/tree:ro", main]);
  // Created in an earlier worker; it exists again in the new one.
  writeFileSync(join(own, "gitdir"), "/workspace/.trees/made/.git\n");
  assert.equal(targets(main), [main]);
});

test("projectGit() protects many worktrees with a single mount", ({ main, own }) => {
  for (let copy = 0; copy < 40; copy++) {
    cpSync(own, `${own}${copy}`, { recursive: true });
  }
  assert.equal(targets(main), ["/workspace/.git/worktrees:ro"]);
});

test("projectGit() follows no links among the worktrees", ({ root, main, own }) => {
  mkdirSync(join(root, "secret"));
  symlinkSync(join(root, "secret"), `${own}-link`);
  assert.equal(targets(main), ["/workspace/.git/worktrees/tree:ro"]);
  renameSync(join(main, ".git/worktrees"), join(root, "moved"));
  symlinkSync(join(root, "moved"), join(main, ".git/worktrees"));
  assert.equal(targets(main), []);
});

test("projectGit() mounts a submodule's git directory where the project looks for it", ({ root, main }) => {
  const library = join(root, "library");
  git(main, "submodule", "--quiet", "add", library, "libs/x");
  const found = gitOf(join(main, "libs/x"), anything);
  assert.is(found.outside, join(main, ".git/modules/libs/x"));
  assert.is(found.link, "/libs/x");
  assert.equal(targets(join(main, "libs/x")), ["/.git/modules/libs/x"]);
  writeFileSync(
    join(main, ".git/modules/libs/x/config"),
    "[core]\n\tworktree = ../../../../../tree\n",
  );
  assert.match(refusedFor(join(main, "libs/x")), "refers to another directory");
});

test("projectGit() mounts no submodule over reserved paths of a worker", ({ root, main }) => {
  const library = join(root, "library");
  git(main, "submodule", "--quiet", "add", library, "home");
  assert.match(
    refusedFor(join(main, "home")),
    "/home is reserved in the worker",
  );
});

test("projectGit() mounts no separate git directory, as it has no link to the project", ({ root }) => {
  const separate = join(root, "separate");
  git(
    root,
    "init",
    "--quiet",
    "--separate-git-dir",
    `${separate}.git`,
    separate,
  );
  assert.match(refusedFor(separate), `${separate}.git is not mounted`);
});

test("projectGit() reports a repository around the project, except a home", ({ main }) => {
  mkdirSync(join(main, "packages/a"), { recursive: true });
  const at = join(main, "packages/a");
  assert.match(refusedFor(at), `part of the git repository ${main}`);
  const home = (path: string) => path === main ? "a home" : undefined;
  assert.is(refusedFor(at, home), "");
});

test("projectGit() reports objects in other directories", ({ root, main }) => {
  git(root, "clone", "--quiet", "--shared", main, "shared");
  assert.match(
    refusedFor(join(root, "shared")),
    `Objects of the repository are in ${main}/.git/objects`,
  );
});

test.run();
