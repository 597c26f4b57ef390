// The copies that sessions work in: repositories of all kinds are copied, and hostile copies
// are read, by the git of this machine.

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { createHash } from "node:crypto";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Failure } from "../../lib/std/errors.ts";
import { diff } from "../../lib/workspace/git/diff.ts";
import { pointerProgram } from "../../lib/workspace/git/git.ts";
import { offer } from "../../lib/workspace/git/pack.ts";
import { receive } from "../../lib/workspace/git/receive.ts";
import { isBranchName, readRefs } from "../../lib/workspace/git/refs.ts";
import { urlForWorkers } from "../../lib/workspace/git/source.ts";
import {
  commit,
  type Context,
  copyOf,
  env,
  failureOf,
  fetch,
  git,
  packed,
  repository,
  scratchIn,
  write,
} from "../helper/copied.ts";

const test = suite<Context>("workspace");

test.before.each((context) => {
  context.root = mkdtempSync(join(tmpdir(), "hal9000-workspace-"));
});
test.after.each(({ root }) => rmSync(root, { recursive: true, force: true }));

test("copies history, branches and tags of a repository", async (context) => {
  const app = repository(context.root);
  git(app, "checkout", "--quiet", "-b", "feature");
  const feature = commit(app, { "f.txt": "f\n" });
  git(app, "tag", "--annotate", "v1", "--message", "v1");
  git(app, "checkout", "--quiet", "main");
  const before = git(app, "status", "--porcelain") +
    git(app, "for-each-ref");
  const copy = await copyOf(context, app);
  const { target, result } = copy;
  assert.is(git(target, "symbolic-ref", "HEAD"), "refs/heads/claudy/one");
  assert.is(git(target, "rev-parse", "HEAD"), git(app, "rev-parse", "main"));
  assert.is(git(target, "rev-parse", "host/feature"), feature);
  assert.is(git(target, "rev-parse", "v1^{commit}"), feature);
  assert.is(
    git(target, "rev-parse", "host/HEAD"),
    git(app, "rev-parse", "main"),
  );
  assert.is(
    git(target, "branch", "--format=%(refname)"),
    "refs/heads/claudy/one",
  );
  assert.is(git(target, "status", "--porcelain"), "");
  assert.is(readFileSync(join(target, "b/c.txt"), "utf8"), "two\n");
  assert.ok(result.known.includes(feature));
  assert.equal([result.changed, result.untracked], [0, 0]);
  git(target, "fsck", "--strict");
  assert.is(
    git(app, "status", "--porcelain") + git(app, "for-each-ref"),
    before,
  );
  // A branch of the user is made from it, and follows it.
  git(target, "checkout", "--quiet", "feature");
  assert.is(git(target, "config", "branch.feature.remote"), "host");
});

test("shares no file with the user's repository", async (context) => {
  const app = repository(context.root);
  git(app, "gc", "--quiet");
  commit(app, { "d.txt": "loose\n" });
  const { target } = await copyOf(context, app);
  const inodes = (directory: string) =>
    readdirSync(directory, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => statSync(join(entry.parentPath, entry.name)).ino);
  const theirs = new Set(inodes(app));
  assert.equal(inodes(target).filter((ino) => theirs.has(ino)), []);
  assert.not(existsSync(join(target, ".git/objects/info/alternates")));
});

test("runs no hook, filter or monitor of the user's repository", async (context) => {
  const app = repository(context.root);
  const marker = join(context.root, "ran");
  commit(app, { ".gitattributes": "*.txt filter=evil\n", "e.txt": "e\n" });
  write(app, { "a.txt": "changed\n", "new.txt": "new\n" });
  for (
    const [key, value] of [
      ["filter.evil.smudge", `touch ${marker}; cat`],
      ["filter.evil.clean", `touch ${marker}; cat`],
      ["core.fsmonitor", `touch ${marker}; false`],
      ["core.sshCommand", `touch ${marker}`],
      ["uploadpack.packObjectsHook", `touch ${marker}`],
      ["core.alternateRefsCommand", `touch ${marker}`],
    ] as const
  ) git(app, "config", key, value);
  mkdirSync(join(app, ".git/hooks"), { recursive: true });
  for (
    const hook of [
      "post-checkout",
      "reference-transaction",
      "post-index-change",
    ]
  ) {
    const path = join(app, ".git/hooks", hook);
    writeFileSync(path, `#!/bin/sh\ntouch ${marker}\n`);
    chmodSync(path, 0o755);
  }
  rmSync(marker, { force: true });
  const { target, result } = await copyOf(context, app, { changes: true });
  assert.not(existsSync(marker));
  assert.equal([result.changed, result.untracked], [1, 1]);
  assert.is(readFileSync(join(target, "a.txt"), "utf8"), "changed\n");
  assert.not(
    /evil|touch/.test(readFileSync(join(target, ".git/config"), "utf8")),
  );
  assert.not(existsSync(join(target, ".git/hooks")));
});

test("counts what is not committed, and takes it along if asked", async (context) => {
  const app = repository(context.root);
  commit(app, {
    ".gitignore": "*.log\nbuild/\n",
    "gone.txt": "gone\n",
    "l": "file",
  });
  write(app, {
    "a.txt": "more\n",
    "new/x.txt": "x\n",
    "out.log": "log",
    "build/o": "o",
  });
  writeFileSync(join(app, "run.sh"), "#!/bin/sh\n", { mode: 0o755 });
  rmSync(join(app, "gone.txt"));
  rmSync(join(app, "l"));
  symlinkSync("/etc/passwd", join(app, "l"));
  git(app, "add", "run.sh");
  const without = await copyOf(context, app);
  assert.equal([without.result.changed, without.result.untracked], [4, 1]);
  assert.is(readFileSync(join(without.target, "a.txt"), "utf8"), "one\n");
  const status = git(app, "status", "--porcelain");
  const { target, result } = await copyOf(context, app, {
    changes: true,
    ignored: ["build/**"],
  });
  assert.is(readFileSync(join(target, "a.txt"), "utf8"), "more\n");
  assert.is(readFileSync(join(target, "new/x.txt"), "utf8"), "x\n");
  assert.is(statSync(join(target, "run.sh")).mode & 0o111, 0o111);
  assert.not(existsSync(join(target, "gone.txt")));
  assert.ok(lstatSync(join(target, "l")).isSymbolicLink());
  assert.not(existsSync(join(target, "out.log")));
  assert.is(readFileSync(join(target, "build/o"), "utf8"), "o");
  assert.is(result.ignored, 1);
  assert.is(git(app, "status", "--porcelain"), status);
});

test("gives a directory that is no repository one in the copy only", async (context) => {
  const app = join(context.root, "plain");
  write(app, {
    "a.txt": "a",
    ".gitignore": "*.log",
    "x.log": "x",
    "odd \n'name": "o",
  });
  mkdirSync(join(app, "nested"));
  git(join(app, "nested"), "init", "--quiet");
  commit(join(app, "nested"), { n: "n" });
  mkdirSync(join(app, "without"));
  git(join(app, "without"), "init", "--quiet");
  const copy = await copyOf(context, app, { source: null });
  const { target, result } = copy;
  assert.not(existsSync(join(app, ".git")));
  assert.is(git(target, "status", "--porcelain"), "");
  assert.is(readFileSync(join(target, "odd \n'name"), "utf8"), "o");
  assert.not(existsSync(join(target, "x.log")));
  assert.equal(result.notices, [
    "Repositories in it are not in the copy: nested, without",
  ]);
  // An empty one has no commit.
  const empty = join(context.root, "empty");
  mkdirSync(empty);
  assert.is((await copyOf(context, empty, { source: null })).result.head, null);
});

test("copies the remotes without credentials and without paths of this machine", async (context) => {
  const app = repository(context.root);
  git(app, "remote", "add", "origin", "https://me:token@example.com/a.git");
  git(app, "remote", "add", "disk", "/srv/a.git");
  git(app, "remote", "add", "bad", "ext::sh -c touch% /tmp/x");
  git(app, "update-ref", "refs/remotes/origin/main", "HEAD");
  git(app, "update-ref", "refs/remotes/claudy/other/main", "HEAD");
  git(
    app,
    "symbolic-ref",
    "refs/remotes/origin/HEAD",
    "refs/remotes/origin/main",
  );
  const { target, result } = await copyOf(context, app);
  const config = readFileSync(join(target, ".git/config"), "utf8");
  assert.is(
    git(target, "config", "remote.origin.url"),
    "https://example.com/a.git",
  );
  assert.not(/token|srv|ext::/.test(config));
  assert.equal(result.notices, [
    "Remotes without a URL that a worker can use: disk, bad",
  ]);
  assert.is(
    git(target, "symbolic-ref", "refs/remotes/origin/HEAD"),
    "refs/remotes/origin/main",
  );
  assert.is(git(target, "for-each-ref", "refs/remotes/claudy"), "");
  assert.is(urlForWorkers("ssh://git:pw@h/x"), "ssh://git@h/x");
  assert.is(urlForWorkers("ssh://git:p@w@h/x"), "ssh://git@h/x");
  assert.is(urlForWorkers("https://me:p@w@h/x"), "https://h/x");
  assert.is(urlForWorkers("https://h/x?private_token=t"), "https://h/x");
  assert.is(urlForWorkers("git@github.com:a/b.git"), "git@github.com:a/b.git");
  assert.is(urlForWorkers("file:///srv/a"), undefined);
});

test("takes no repository in the project along, with its credentials", async (context) => {
  const app = repository(context.root);
  // One that is committed, as an old submodule is, and one that git does not track.
  for (const name of ["old", "new"]) {
    const inner = join(app, name);
    mkdirSync(inner);
    git(inner, "init", "--quiet");
    commit(inner, { ".gitignore": ".env\n" });
    git(inner, "remote", "add", "o", "https://me:token@example.com/a.git");
    write(inner, { ".env": "secret" });
  }
  git(app, "add", "old");
  git(app, "commit", "--quiet", "--message", "old");
  commit(join(app, "old"), { more: "more" });
  const { target, result } = await copyOf(context, app, { changes: true });
  assert.equal(result.notices, [
    "Changes of repositories in it are not in the copy: old, new",
  ]);
  assert.not(existsSync(join(target, "new")));
  assert.equal(readdirSync(join(target, "old")), []);
});

test("takes ignored repositories along without their .git", async (context) => {
  const app = repository(context.root);
  commit(app, { ".gitignore": "vendor/\n" });
  const inner = join(app, "vendor/lib");
  write(inner, { "deep/sub/x": "x", "l.txt": "l" });
  symlinkSync("/etc/passwd", join(inner, "link"));
  for (const path of [inner, join(inner, "deep/sub")]) {
    git(path, "init", "--quiet");
    git(path, "remote", "add", "o", "https://me:t0ken@example.com/a.git");
    commit(path, { c: "c" });
  }
  // Of a worktree, with a path of this machine.
  write(app, { "vendor/wt/.git": "gitdir: /elsewhere\n", "vendor/wt/w": "w" });
  const { target, result } = await copyOf(context, app, {
    ignored: ["vendor/**"],
  });
  const files = readdirSync(join(target, "vendor"), { recursive: true })
    .map(String).filter((name) =>
      !lstatSync(join(target, "vendor", name))
        .isDirectory()
    ).sort();
  assert.equal(files, [
    ...["lib/c", "lib/deep/sub/c", "lib/deep/sub/x", "lib/l.txt", "lib/link"],
    "wt/w",
  ]);
  assert.ok(lstatSync(join(target, "vendor/lib/link")).isSymbolicLink());
  assert.equal(result.notices, [
    "Repositories among the ignored files are in the copy without their .git: " +
    "vendor/lib",
  ]);
});

test("takes a link along that was a directory", async (context) => {
  const app = repository(context.root);
  write(app, { "e/c.txt": "e\n" });
  rmSync(join(app, "b"), { recursive: true });
  symlinkSync("e", join(app, "b"));
  const { target } = await copyOf(context, app, { changes: true });
  assert.ok(lstatSync(join(target, "b")).isSymbolicLink());
  assert.is(
    git(target, "status", "--porcelain"),
    git(app, "status", "--porcelain"),
  );
  // And a file that has become a directory.
  rmSync(join(app, "a.txt"));
  write(app, {
    ".git/info/exclude": "ignored\n",
    "a.txt/new": "n",
    "a.txt/ignored": "i",
  });
  const second = await copyOf(context, app, { changes: true });
  assert.equal(readdirSync(join(second.target, "a.txt")), ["new"]);
});

test("copies no secret of the user's git directories", async (context) => {
  const { root } = context;
  const secret = "s3cr3t-t0ken";
  const url = `https://me:${secret}@example.com/a.git`;
  const library = join(root, "library");
  mkdirSync(library);
  git(library, "init", "--quiet");
  commit(library, { l: "l" });
  const app = repository(root);
  git(app, "submodule", "--quiet", "add", library, "sub");
  git(app, "commit", "--quiet", "--message", "sub");
  git(app, "worktree", "add", "--quiet", "-b", "side", join(root, "side"));
  const dot = join(app, ".git");
  for (
    const [at, module] of [[app, dot], [
      join(app, "sub"),
      join(dot, "modules/sub"),
    ]] as const
  ) {
    for (
      const key of [
        ...["remote.origin.url", "remote.origin.pushurl", "remote.x.proxy"],
        ...[`url.${url}.insteadOf`, "http.extraHeader", "branch.main.remote"],
        ...["credential.helper", "submodule.sub.url", "alias.x", "lfs.url"],
      ]
    ) git(at, "config", key, url);
    write(module, {
      FETCH_HEAD: `${"1".repeat(40)}\t\tbranch 'main' of ${url}\n`,
      "logs/HEAD": `${url}\n`,
      "hooks/pre-push": `#!/bin/sh\n# ${secret}\n`,
      "info/attributes": `# ${secret}\n`,
      description: secret,
      COMMIT_EDITMSG: secret,
      "rebase-merge/message": secret,
      "worktrees/side/config.worktree": `[http]\n\textraHeader = ${secret}\n`,
      "objects/info/http-alternates": url,
      "lfs/cache/locks": secret,
    });
  }
  const { target } = await copyOf(context, app, { changes: true });
  const found = readdirSync(target, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => readFileSync(path, "latin1").includes(secret));
  assert.equal(found, []);
  assert.ok(existsSync(join(target, "sub/l")));
});

test("takes nothing along that an index names outside of the working tree", async (context) => {
  const app = repository(context.root);
  write(app, { ".giX/config": "x", "x../secret": "x" });
  git(app, "add", "--all");
  write(context.root, { "xx/secret": "secret", "secret": "secret" });
  const path = join(app, ".git/index");
  const index = readFileSync(path);
  for (
    const [from, to] of [[".giX/config", ".git/config"], [
      "x../secret",
      "..//secret",
    ]] as const
  ) {
    const at = index.indexOf(from);
    index.write(to, at);
  }
  createHash("sha1").update(index.subarray(0, -20)).digest()
    .copy(index, index.length - 20);
  writeFileSync(path, index);
  const { target, result } = await copyOf(context, app, { changes: true });
  assert.ok(result.changed >= 2);
  const config = readFileSync(join(target, ".git/config"), "utf8");
  assert.match(config, "defaultRemote = host");
  assert.ok(existsSync(join(context.root, "secret")));
});

test("copies a worktree with its own branch", async (context) => {
  const app = repository(context.root);
  const tree = join(context.root, "tree");
  git(app, "worktree", "add", "--quiet", "-b", "side", tree);
  const side = commit(tree, { "s.txt": "s\n" });
  write(tree, { "a.txt": "not committed\n" });
  const source = {
    common: join(app, ".git"),
    own: join(app, ".git/worktrees/tree"),
    tree,
  };
  const copy = await copyOf(context, tree, { source, tree, changes: true });
  assert.is(git(copy.target, "rev-parse", "HEAD"), side);
  assert.is(
    readFileSync(join(copy.target, "a.txt"), "utf8"),
    "not committed\n",
  );
  assert.is(copy.result.changed, 1);
  commit(copy.target, { "t.txt": "t\n" });
  const { updated } = await fetch(context, copy, source.common);
  assert.equal(updated.map(({ commits }) => commits), [1]);
});

test("copies bare, shallow, empty, detached and sha256 repositories", async (context) => {
  const app = repository(context.root);
  const last = commit(app, { "z.txt": "z\n" });
  const bare = join(context.root, "bare.git");
  git(context.root, "clone", "--quiet", "--bare", app, bare);
  const source = { common: bare, own: bare, tree: null };
  const ofBare = await copyOf(context, bare, { source, tree: null });
  assert.is(git(ofBare.target, "rev-parse", "HEAD"), last);
  commit(ofBare.target, { "y.txt": "y\n" });
  assert.is((await fetch(context, ofBare, bare)).updated.length, 1);

  const shallow = join(context.root, "shallow");
  git(context.root, "clone", "--quiet", "--depth=1", `file://${app}`, shallow);
  const ofShallow = await copyOf(context, shallow);
  assert.is(git(ofShallow.target, "rev-list", "--count", "HEAD"), "1");
  commit(ofShallow.target, { "y.txt": "y\n" });
  const fetched = await fetch(context, ofShallow, join(shallow, ".git"));
  assert.equal(fetched.updated.map(({ commits }) => commits), [1]);

  const unborn = join(context.root, "unborn");
  mkdirSync(unborn);
  git(unborn, "init", "--quiet");
  write(unborn, { n: "n" });
  const ofUnborn = await copyOf(context, unborn, { changes: true });
  assert.is(ofUnborn.result.head, null);
  assert.is(git(ofUnborn.target, "status", "--porcelain"), "?? n");
  const first = commit(ofUnborn.target, { m: "m" });
  await fetch(context, ofUnborn, join(unborn, ".git"));
  assert.is(git(unborn, "rev-parse", "claudy/one/claudy/one"), first);

  git(app, "checkout", "--quiet", "--detach", "HEAD~1");
  const detached = git(app, "rev-parse", "HEAD");
  const ofDetached = await copyOf(context, app);
  assert.is(git(ofDetached.target, "rev-parse", "claudy/one"), detached);

  const other = join(context.root, "other");
  mkdirSync(other);
  const long = repository(other, "--object-format=sha256");
  const ofLong = await copyOf(context, long);
  assert.is(ofLong.result.format, "sha256");
  const id = commit(ofLong.target, { l: "l" });
  assert.is(id.length, 64);
  assert.is(
    (await fetch(context, ofLong, join(long, ".git"))).updated[0]?.id,
    id,
  );
});

test("keeps a sparse checkout sparse", async (context) => {
  const app = repository(context.root);
  commit(app, { "big/x": "x", "small/y": "y" });
  git(app, "sparse-checkout", "set", "small");
  const { target, result } = await copyOf(context, app, { changes: true });
  assert.ok(existsSync(join(target, "small/y")));
  assert.not(existsSync(join(target, "big/x")));
  assert.equal([result.changed, result.untracked], [0, 0]);
  assert.is(git(target, "status", "--porcelain"), "");
});

test("copies 200 branches, and fetches only those of the session", async (context) => {
  const app = repository(context.root);
  const head = git(app, "rev-parse", "HEAD");
  execFileSync("git", ["update-ref", "--stdin"], {
    cwd: app,
    env: env as NodeJS.ProcessEnv,
    input: [...Array(200).keys()]
      .map((at) => `create refs/heads/team/b${at} ${head}\n`).join(""),
  });
  const copy = await copyOf(context, app);
  assert.is(
    git(
      copy.target,
      "for-each-ref",
      "--count=1000",
      "--format=%(refname)",
      "refs/remotes/host/team",
    )
      .split("\n").length,
    200,
  );
  commit(copy.target, { n: "n" });
  const { updated } = await fetch(context, copy, join(app, ".git"));
  assert.equal(updated.map(({ branch }) => branch), ["claudy/one"]);
});

test("copies submodules that are there, also nested ones", async (context) => {
  const { root } = context;
  for (const name of ["inner", "outer"]) {
    mkdirSync(join(root, name));
    git(join(root, name), "init", "--quiet");
  }
  commit(join(root, "inner"), { "i.txt": "inner" });
  git(
    join(root, "outer"),
    "submodule",
    "--quiet",
    "add",
    join(root, "inner"),
    "in",
  );
  commit(join(root, "outer"), { "o.txt": "outer" });
  const app = repository(root);
  git(app, "submodule", "--quiet", "add", join(root, "outer"), "lib/out");
  commit(app, { "p.txt": "p" });
  git(app, "submodule", "--quiet", "update", "--init", "--recursive");
  const { target, result } = await copyOf(context, app);
  assert.equal(result.notices, []);
  assert.is(readFileSync(join(target, "lib/out/o.txt"), "utf8"), "outer");
  assert.is(readFileSync(join(target, "lib/out/in/i.txt"), "utf8"), "inner");
  assert.is(git(target, "status", "--porcelain"), "");
  assert.is(git(join(target, "lib/out/in"), "status", "--porcelain"), "");
  // The copy works wherever it lies.
  renameSync(target, join(root, "elsewhere"));
  assert.match(
    git(join(root, "elsewhere"), "submodule", "status", "--recursive"),
    / lib\/out/,
  );
  // One that is not there is reported.
  rmSync(join(app, ".git/modules"), { recursive: true });
  assert.equal((await copyOf(context, app)).result.notices, [
    "Submodule lib/out is not in your repository",
  ]);
});

const pointerOf = (text: string) =>
  "version https://git-lfs.github.com/spec/v1\n" +
  `oid sha256:${
    createHash("sha256").update(text).digest("hex")
  }\nsize ${text.length}\n`;

test("puts files of Git LFS in the place of their pointers", async (context) => {
  const app = repository(context.root);
  const [here, absent] = ["content that is here", "content that is not"];
  commit(app, {
    ".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n",
    "x.bin": pointerOf(here),
    "y.bin": pointerOf(absent),
  });
  const oid = createHash("sha256").update(here).digest("hex");
  const object = `.git/lfs/objects/${oid.slice(0, 2)}/${
    oid.slice(2, 4)
  }/${oid}`;
  const pointer = join(context.root, "pointer");
  writeFileSync(pointer, pointerOf(here));
  write(app, { [object]: here, "x.bin": here });
  git(app, "-c", `filter.lfs.clean=cat ${pointer}`, "add", "x.bin");
  const copy = await copyOf(context, app, { changes: true });
  const { target, result } = copy;
  assert.is(readFileSync(join(target, "x.bin"), "utf8"), here);
  assert.is(readFileSync(join(target, "y.bin"), "utf8"), pointerOf(absent));
  assert.is(readFileSync(join(target, object), "utf8"), here);
  assert.equal(result.notices, [
    "Files of Git LFS whose content is not in your repository: 1",
  ]);
  assert.equal([result.changed, result.untracked], [0, 0]);
  // Neither does it count as changed in the copy, and a new one is committed as a pointer.
  assert.is((await packed(context, copy)).changed, 0);
  write(target, { "z.bin": "new content" });
  const { branches, untracked, changesTree } = await fetch(
    context,
    copy,
    join(app, ".git"),
    {
      changes: true,
    },
  );
  assert.is(untracked, 1);
  // Its content is in the copy alone, as is that of a commit.
  const alone = { write: false, fetchedTree: changesTree };
  const left = await packed(context, copy, alone);
  assert.equal([left.changed, left.untracked], [0, 1]);
  const other = createHash("sha256").update("other").digest("hex");
  write(target, { [`.git/lfs/objects/aa/bb/${other}`]: "other" });
  assert.is((await packed(context, copy, alone)).changed, 1);
  assert.is(
    git(app, "show", `${branches["uncommitted"]}:z.bin`) + "\n",
    pointerOf("new content"),
  );
});

test("makes the pointer of a file without a copy of it", () => {
  const content = "content\n".repeat(200_000);
  const filter = (input: string) =>
    execFileSync("sh", ["-c", `ulimit -f 100; ${pointerProgram()}`], {
      input,
      encoding: "utf8",
      env: env as NodeJS.ProcessEnv,
    });
  const oid = createHash("sha256").update(content).digest("hex");
  const pointer = "version https://git-lfs.github.com/spec/v1\n" +
    `oid sha256:${oid}\nsize ${content.length}\n`;
  assert.is(filter(content), pointer);
  assert.is(filter(pointer), pointer);
  const empty = createHash("sha256").update("").digest("hex");
  assert.match(filter(""), `oid sha256:${empty}\nsize 0\n`);
});

test("refuses what it cannot copy", async (context) => {
  const app = repository(context.root);
  git(app, "config", "extensions.partialClone", "origin");
  assert.match(
    (await failureOf(copyOf(context, app))).message,
    "partial clone",
  );
  git(app, "config", "--unset", "extensions.partialClone");
  write(app, { ".git/objects/info/alternates": "/srv/objects\n" });
  assert.match(
    (await failureOf(copyOf(context, app))).message,
    "another repository",
  );
});

test("fetches commits, and what is not committed as a commit", async (context) => {
  const app = repository(context.root);
  const copy = await copyOf(context, app);
  const common = join(app, ".git");
  const none = await fetch(context, copy, common);
  assert.is(none.commits, 0);
  assert.equal(none.updated.map(({ commits }) => commits), [0]);
  const one = commit(copy.target, { "n.txt": "n\n" });
  git(copy.target, "checkout", "--quiet", "-b", "idea");
  const idea = commit(copy.target, { "i.txt": "i\n" });
  write(copy.target, { "a.txt": "changed\n", "u.txt": "u\n" });
  const status = git(copy.target, "status", "--porcelain");
  const found = await fetch(context, copy, common, { changes: true });
  assert.equal([found.commits, found.changed, found.untracked], [3, 1, 1]);
  assert.is(found.head, "idea");
  assert.is(git(app, "rev-parse", "claudy/one/claudy/one"), one);
  assert.is(git(app, "rev-parse", "claudy/one/idea"), idea);
  assert.is(git(app, "rev-parse", "claudy/one/uncommitted~"), idea);
  assert.is(git(app, "show", "claudy/one/uncommitted:u.txt"), "u");
  assert.is(git(copy.target, "status", "--porcelain"), status);
  assert.is(git(app, "status", "--porcelain"), "");
  // Again: nothing is new. A detached HEAD comes too.
  const again = await fetch(context, copy, common, { changes: true });
  assert.equal(again.updated, []);
  // One that a kill has left does not keep the next fetch from its work.
  const lock = join(common, "refs/remotes/claudy/one/detached.lock");
  writeFileSync(lock, "");
  utimesSync(lock, 1, 1);
  git(copy.target, "checkout", "--quiet", "--detach");
  const lost = commit(copy.target, { "lost.txt": "lost\n" });
  assert.is((await fetch(context, copy, common)).branches["detached"], lost);
  // Commits that the user has removed in the meantime.
  const { target } = await copyOf(context, app);
  git(target, "gc", "--quiet");
  const all = await packed(context, copy, { known: [] });
  assert.ok(statSync(all.pack).size > 500);
});

test("runs nothing that a copy contains", async (context) => {
  const app = repository(context.root);
  const copy = await copyOf(context, app);
  const { target } = copy;
  const marker = join(context.root, "ran");
  const id = commit(copy.target, {
    ".gitattributes": "* filter=x diff=x merge=x\n",
    n: "n",
  });
  // A repository in it that is in the index, and has a monitor of its own.
  const inner = join(target, "inner");
  mkdirSync(inner);
  git(inner, "init", "--quiet");
  commit(inner, { i: "i" });
  git(target, "add", "inner");
  write(target, { "u.txt": "u" });
  const evil = join(target, "evil.sh");
  writeFileSync(evil, `#!/bin/sh\ntouch ${marker}\ncat\n`, { mode: 0o755 });
  const config =
    `[core]\n\tfsmonitor = ${evil}\n\thooksPath = ${target}/hooks\n` +
    `\tsshCommand = ${evil}\n\talternateRefsCommand = ${evil}\n\tpager = ${evil}\n` +
    `\tattributesFile = ${target}/attributes\n\tgitProxy = ${evil}\n\teditor = ${evil}\n` +
    `[filter "x"]\n\tclean = ${evil}\n\tsmudge = ${evil}\n\tprocess = ${evil}\n\trequired\n` +
    `[diff "x"]\n\ttextconv = ${evil}\n\tcommand = ${evil}\n[diff]\n\texternal = ${evil}\n` +
    `[merge "x"]\n\tdriver = ${evil}\n[gpg]\n\tprogram = ${evil}\n[commit]\n\tgpgSign\n` +
    `[uploadpack]\n\tpackObjectsHook = ${evil}\n[include]\n\tpath = ${target}/more\n` +
    `[submodule "s"]\n\turl = ext::sh -c ${evil}\n\tupdate = !${evil}\n`;
  write(target, {
    more: config.replace("[include]", "[other]"),
    ".gitmodules": `[submodule "s"]\n\tpath = s\n\turl = ext::sh -c ${evil}\n`,
    ".git/info/grafts": `${id}\n`,
  });
  writeFileSync(join(target, ".git/config"), config, { flag: "a" });
  mkdirSync(join(target, "hooks"));
  for (
    const hook of [
      "reference-transaction",
      "post-index-change",
      "pre-commit",
      "post-checkout",
    ]
  ) {
    writeFileSync(join(target, "hooks", hook), `#!/bin/sh\ntouch ${marker}\n`, {
      mode: 0o755,
    });
  }
  write(inner, { j: "j" });
  writeFileSync(join(inner, ".git/config"), config, { flag: "a" });
  rmSync(marker, { force: true });
  const found = await fetch(context, copy, join(app, ".git"), {
    changes: true,
  });
  assert.ok(found.branches["uncommitted"]);
  assert.is(git(app, "rev-parse", "claudy/one/claudy/one"), id);
  const { text } = await diff({
    do: "diff",
    tree: target,
    format: "sha1",
    source: { common: join(app, ".git"), own: join(app, ".git"), tree: app },
    base: null,
    changes: true,
    stat: false,
    scratch: scratchIn(context.root),
  });
  assert.match(text, "+++ b/u.txt");
  const { branches } = await offer({
    do: "offer",
    source: { common: join(app, ".git"), own: join(app, ".git"), tree: app },
    known: [],
    scratch: scratchIn(context.root),
  });
  assert.ok(branches["main"]);
  assert.not(existsSync(marker));
});

test("takes only names that git allows, and says which others there are", async (context) => {
  const app = repository(context.root);
  const copy = await copyOf(context, app);
  const id = commit(copy.target, { n: "n" });
  const heads = join(copy.target, ".git/refs/heads");
  write(heads, {
    "with space": `${id}\n`,
    "esc\x1b[31m": `${id}\n`,
    "back..up": `${id}\n`,
    "fine-\u202ename": `${id}\n`,
    "gone": `${"1".repeat(40)}\n`,
    "garbage": "garbage\n",
  });
  symlinkSync("/etc/passwd", join(heads, "link"));
  symlinkSync("/", join(heads, "directory"));
  write(copy.target, {
    ".git/packed-refs": `${id} refs/heads/packed\n${id} refs/heads/../../x\n`,
  });
  const found = await fetch(context, copy, join(app, ".git"));
  assert.equal(Object.keys(found.branches).sort(), [
    "claudy/one",
    "fine-\u202ename",
    "packed",
  ]);
  assert.equal(found.refused.sort(), [
    "../../x",
    "back..up",
    "directory",
    "esc\x1b[31m",
    "garbage",
    "gone",
    "link",
    "with space",
  ]);
  for (
    const name of [
      "",
      "@",
      "HEAD",
      "-x",
      ".a",
      "a/.b",
      "a.lock",
      "a/",
      "a//b",
      "a@{b",
      "a.",
    ]
  ) {
    assert.not(isBranchName(name), name);
  }
});

test("fetches other branches if some cannot be together, or have names of ours", async (context) => {
  const app = repository(context.root);
  const copy = await copyOf(context, app);
  const { target } = copy;
  const id = commit(target, { n: "n" });
  const names = [
    "a",
    "a/b;$(id)",
    "y".repeat(300),
    "detached",
    "uncommitted/x",
  ];
  writeFileSync(
    join(target, ".git/packed-refs"),
    names.map((name) => `${id} refs/heads/${name}\n`).join(""),
  );
  git(target, "checkout", "--quiet", "--detach");
  const head = commit(target, { d: "d" });
  write(target, { u: "u" });
  const found = await fetch(context, copy, join(app, ".git"), {
    changes: true,
  });
  assert.equal(
    Object.keys(found.branches).sort(),
    ["a", "claudy/one", "detached", "uncommitted"],
  );
  assert.is(found.branches["detached"], head);
  assert.equal(found.refused.sort(), names.slice(1).sort());
  // One that was fetched before.
  writeFileSync(
    join(target, ".git/packed-refs"),
    `${id} refs/heads/a/b;$(id)\n`,
  );
  const common = join(app, ".git");
  const { message } = await failureOf(fetch(context, copy, common));
  assert.match(message, "refs/remotes/claudy/one/a of before is in the way");
  git(app, "update-ref", "-d", "refs/remotes/claudy/one/a");
  await fetch(context, copy, common);
  writeFileSync(join(target, ".git/packed-refs"), `${id} refs/heads/a\n`);
  const { hint } = await failureOf(fetch(context, copy, common)) as Failure;
  assert.is(
    hint,
    "Remove it: git update-ref -d 'refs/remotes/claudy/one/a/b;$(id)'",
  );
});

test("fetches one of two branches that a file system may take for the same", async (context) => {
  const app = repository(context.root);
  const copy = await copyOf(context, app);
  const { target } = copy;
  const id = commit(target, { n: "n" });
  const other = git(target, "commit-tree", "-p", id, "-m", "x", `${id}^{tree}`);
  const names = [
    "Claudy/one",
    "Fix",
    "fix",
    "FIX/x",
    "Uncommitted",
    "DETACHED/x",
  ];
  writeFileSync(
    join(target, ".git/packed-refs"),
    names.map((name) => `${other} refs/heads/${name}\n`).join(""),
  );
  const found = await fetch(context, copy, join(app, ".git"));
  // The one that is checked out, and the first one.
  assert.equal(Object.keys(found.branches).sort(), ["Fix", "claudy/one"]);
  const left = names.filter((name) => name !== "Fix").sort();
  assert.equal(found.refused.sort(), left);
  git(target, "update-ref", "-d", "refs/heads/Fix");
  copy.result.known.push(id);
  const { commits } = await packed(context, copy, { write: false });
  assert.is(commits, 1);
});

test("fails if the branches of a copy cannot be read, and does not wait for pipes", async (context) => {
  const app = repository(context.root);
  const common = join(app, ".git");
  const copy = await copyOf(context, app);
  const packedRefs = join(copy.target, ".git/packed-refs");
  writeFileSync(packedRefs, "x".repeat(17 * 1024 ** 2));
  const { message } = await failureOf(fetch(context, copy, common));
  assert.is(message, "Its packed-refs is too large");
  rmSync(packedRefs);
  for (
    const name of [
      "b/.gitignore",
      ".git/objects/pack/pack-1.idx",
      "inner/.git/HEAD",
    ]
  ) {
    execFileSync("mkfifo", [join(context.root, "pipe")]);
    const path = join(copy.target, name);
    mkdirSync(dirname(path), { recursive: true });
    if (name.startsWith(".git/")) symlinkSync(join(context.root, "pipe"), path);
    else renameSync(join(context.root, "pipe"), path);
    const failed = await failureOf(fetch(context, copy, common));
    assert.is(failed.message, `Its ${name} is a pipe`);
    rmSync(path);
    rmSync(join(context.root, "pipe"), { force: true });
  }
});

test("counts commits of stashes, detached worktrees and submodules that are in the copy alone", async (context) => {
  const { root } = context;
  const library = join(root, "library");
  mkdirSync(library);
  git(library, "init", "--quiet");
  commit(library, { l: "l" });
  const app = repository(root);
  git(app, "submodule", "--quiet", "add", library, "sub");
  git(app, "commit", "--quiet", "--message", "sub");
  const copy = await copyOf(context, app);
  const { target } = copy;
  const commits = async () =>
    (await packed(context, copy, { write: false })).commits;
  assert.is(await commits(), 0);
  write(join(target, "sub"), { "not committed": "n" });
  const { changed } = await packed(context, copy, { write: false });
  assert.is(changed, 1);
  commit(join(target, "sub"), { mine: "m" });
  assert.is(await commits(), 1);
  write(target, { "a.txt": "first" });
  // A commit of the index, and one of the files.
  git(target, "stash", "--quiet", "--", "a.txt");
  assert.is(await commits(), 3);
  write(target, { "a.txt": "second" });
  git(target, "stash", "--quiet", "--", "a.txt");
  const stashed = await commits();
  assert.ok(stashed > 3);
  git(target, "worktree", "add", "--quiet", "--detach", join(root, "tree"));
  commit(join(root, "tree"), { t: "t" });
  assert.is(await commits(), stashed + 1);
});

test("uses the settings and patterns of a copy that describe files", async (context) => {
  const app = repository(context.root);
  git(app, "config", "core.autocrlf", "true");
  git(app, "config", "core.fileMode", "false");
  write(app, { ".git/info/exclude": "ignored\n" });
  const copy = await copyOf(context, app);
  const { target } = copy;
  assert.is(readFileSync(join(target, "a.txt"), "utf8"), "one\r\n");
  write(target, { "a.txt": "one\r\ntwo\r\n", ignored: "i" });
  chmodSync(join(target, "b/c.txt"), 0o755);
  const { changed, untracked, branches } = await fetch(
    context,
    copy,
    join(app, ".git"),
    { changes: true },
  );
  assert.equal([changed, untracked], [1, 0]);
  const text = git(app, "show", `${branches["uncommitted"]}:a.txt`);
  assert.is(text, "one\ntwo");
});

test("commits no repository in a copy, and reports it after a fetch", async (context) => {
  const app = repository(context.root);
  const copy = await copyOf(context, app);
  const { target } = copy;
  write(target, { "new": "n" });
  for (const name of ["empty", "full"]) {
    mkdirSync(join(target, name));
    git(join(target, name), "init", "--quiet");
  }
  commit(join(target, "full"), { f: "f" });
  const { branches, changesTree } = await fetch(
    context,
    copy,
    join(app, ".git"),
    { changes: true },
  );
  const files = git(
    app,
    ...["ls-tree", "-r", "--name-only", branches["uncommitted"] ?? ""],
  );
  assert.is(files, "a.txt\nb/c.txt\nnew");
  const { untracked } = await packed(context, copy, {
    fetchedTree: changesTree,
    write: false,
  });
  assert.is(untracked, 2);
});

test("reads a copy whose index is damaged", async (context) => {
  const app = repository(context.root);
  const copy = await copyOf(context, app);
  const id = commit(copy.target, { n: "n" });
  write(copy.target, { "a.txt": "changed", ".git/index": "" });
  const found = await fetch(context, copy, join(app, ".git"), {
    changes: true,
  });
  assert.equal([found.changed, found.untracked], [1, 0]);
  assert.is(found.branches["claudy/one"], id);
  writeFileSync(join(copy.target, ".git/index"), "DIRC garbage".repeat(9));
  assert.is((await packed(context, copy)).changed, 1);
});

test("refuses a copy whose .git leads elsewhere", async (context) => {
  const app = repository(context.root);
  const secret = repository(mkdtempSync(join(context.root, "x")));
  for (const plant of ["file", "link"]) {
    const copy = await copyOf(context, app);
    const dot = join(copy.target, ".git");
    rmSync(dot, { recursive: true });
    if (plant === "file") writeFileSync(dot, `gitdir: ${secret}/.git\n`);
    else symlinkSync(join(secret, ".git"), dot);
    const { message } = await failureOf(packed(context, copy));
    assert.match(message, "not a directory");
  }
});

test("takes nothing of a pack whose objects are broken or missing", async (context) => {
  const app = repository(context.root);
  const common = join(app, ".git");
  const copy = await copyOf(context, app);
  const refs = git(app, "for-each-ref");
  const files = () =>
    readdirSync(join(common, "objects"), { recursive: true }).sort();
  const before = files();
  // A tree with .git in it, which git itself does not make.
  const blob = git(copy.target, "rev-parse", "HEAD:a.txt");
  const tree = execFileSync("git", ["mktree"], {
    cwd: copy.target,
    env: env as NodeJS.ProcessEnv,
    input: `100644 blob ${blob}\t.git\n`,
    encoding: "utf8",
  }).trim();
  const bad = git(copy.target, "commit-tree", tree, "-p", "HEAD", "-m", "bad");
  git(copy.target, "update-ref", "refs/heads/bad", bad);
  const broken = await failureOf(fetch(context, copy, common));
  assert.match(broken.message, /hasDotgit|fsck/i);
  git(copy.target, "update-ref", "-d", "refs/heads/bad");
  commit(copy.target, { n: "n" });
  const { pack: file, branches } = await packed(context, copy);
  const request = {
    do: "receive" as const,
    common,
    pack: file,
    format: "sha1" as const,
    prefix: "refs/remotes/claudy/one/",
    isCopy: false,
  };
  await failureOf(receive({ ...request, branches: { main: "2".repeat(40) } }));
  await failureOf(receive({ ...request, branches, format: "sha256" }));
  writeFileSync(file, readFileSync(file).subarray(0, -30));
  await failureOf(receive({ ...request, branches }));
  assert.equal(files(), before);
  assert.is(git(app, "for-each-ref"), refs);
  git(app, "fsck", "--strict");
});

/** Runs the program as a process of its own, and kills it with its children after a time. */
async function killed(work: object, afterMs: number): Promise<boolean> {
  const program = spawn(process.execPath, [
    ...("Deno" in globalThis ? ["run", "--allow-all", "--no-lock"] : []),
    join(import.meta.dirname ?? "", "../../lib/workspace/git/workspace.ts"),
  ], { detached: true, stdio: ["pipe", "pipe", "ignore"] });
  let text = "";
  program.stdout.on("data", (chunk) => text += String(chunk));
  const ended = once(program, "close");
  program.stdin.write(`${JSON.stringify({ work, checks: [] })}\n`);
  const late = setTimeout(() => {
    try {
      process.kill(-(program.pid ?? 0), "SIGKILL");
    } catch {
      // It has just ended.
    }
  }, afterMs);
  const [code] = await ended;
  clearTimeout(late);
  if (code !== null) assert.match(text, '"result"');
  return code === null;
}

test("a kill while a copy is made leaves the user's repository as it was", async (context) => {
  const { root } = context;
  const app = repository(root);
  const common = join(app, ".git");
  const files = [...Array(300).keys()]
    .map((at) => [`many/${at}.txt`, `${at}\n`.repeat(50)]);
  commit(app, Object.fromEntries(files));
  const state = () =>
    readdirSync(common, { recursive: true }).sort().join() +
    git(app, "for-each-ref");
  const before = state();
  const target = join(root, "killed");
  const work = {
    do: "clone",
    source: { common, own: common, tree: app },
    tree: app,
    target,
    branch: "claudy/two",
    changes: false,
    ignored: [],
    live: false,
  };
  const begun = Date.now();
  assert.not(await killed(work, 60_000));
  const takesMs = Date.now() - begun;
  let kills = 0;
  for (const part of [0.4, 0.55, 0.65, 0.75, 0.85, 0.92]) {
    rmSync(target, { recursive: true, force: true });
    kills += Number(await killed(work, takesMs * part));
    assert.is(state(), before);
    git(app, "fsck", "--strict", "--no-dangling");
    assert.is(git(app, "status", "--porcelain"), "");
  }
  assert.ok(kills > 0);
});

test("shows the difference to the user's branch", async (context) => {
  const app = repository(context.root);
  const copy = await copyOf(context, app);
  commit(copy.target, { "n.txt": "session\n" });
  commit(app, { "user.txt": "user\n" });
  write(copy.target, { "a.txt": "not committed\n" });
  const request = {
    do: "diff" as const,
    tree: copy.target,
    format: "sha1" as const,
    source: { common: join(app, ".git"), own: join(app, ".git"), tree: app },
    base: copy.result.head,
    changes: false,
    stat: false,
    scratch: scratchIn(context.root),
  };
  const committed = await diff(request);
  assert.match(committed.text, "+session");
  assert.not.match(committed.text, /user\.txt|not committed/);
  assert.is(committed.left, 1);
  const all = await diff({
    ...request,
    changes: true,
    scratch: scratchIn(context.root),
  });
  assert.match(all.text, "+not committed");
  assert.is(all.left, 0);
  assert.equal([all.commits, all.files, all.insertions, all.deletions], [
    1,
    2,
    2,
    1,
  ]);
  const without = await diff({
    ...request,
    source: null,
    stat: true,
    scratch: scratchIn(context.root),
  });
  assert.match(without.text, "n.txt | 1 +");
});

test("brings the user's new commits into a copy", async (context) => {
  const app = repository(context.root);
  const copy = await copyOf(context, app);
  const marker = join(context.root, "ran");
  mkdirSync(join(copy.target, ".git/hooks"));
  writeFileSync(
    join(copy.target, ".git/hooks/reference-transaction"),
    `#!/bin/sh\ntouch ${marker}\n`,
    { mode: 0o755 },
  );
  write(join(copy.target, ".git/refs/heads"), {
    "with space": "1".repeat(40),
    gone: "1".repeat(40),
    garbage: "garbage",
  });
  symlinkSync("/etc", join(copy.target, ".git/refs/heads/etc"));
  const id = commit(app, { "user.txt": "user\n" });
  git(app, "branch", "also");
  const pulled = async () => {
    const scratch = scratchIn(context.root);
    const { branches } = await offer({
      do: "offer",
      source: { common: join(app, ".git"), own: join(app, ".git"), tree: app },
      known: copy.result.known,
      scratch,
    });
    const { updated } = await receive({
      do: "receive",
      common: join(copy.target, ".git"),
      pack: join(scratch, "pack"),
      format: "sha1",
      branches,
      prefix: "refs/remotes/host/",
      isCopy: true,
    });
    return updated.map(({ branch, commits }) => [branch, commits]).sort();
  };
  assert.equal(await pulled(), [["also", 1], ["main", 1]]);
  assert.not(existsSync(marker));
  assert.is(git(copy.target, "rev-parse", "host/main"), id);
  assert.is(git(copy.target, "status", "--porcelain"), "");
  git(app, "branch", "--move", "also", "also-1");
  git(app, "branch", "also/2");
  assert.equal(await pulled(), [["also-1", 0], ["also/2", 0]]);
  const config = join(copy.target, ".git/config");
  rmSync(config);
  execFileSync("mkfifo", [config]);
  const { message } = await failureOf(pulled());
  assert.is(message, "Its .git/config is a pipe");
});

test("says which commits of before a session has replaced, and keeps them in the reflog", async (context) => {
  const app = repository(context.root);
  const common = join(app, ".git");
  const copy = await copyOf(context, app);
  const forced = async () =>
    (await fetch(context, copy, common)).updated
      .map(({ forced, before }) => [forced, before]);
  const first = commit(copy.target, { "a.txt": "one" });
  assert.equal(await forced(), [[false, null]]);
  const second = commit(copy.target, { "a.txt": "two" });
  assert.equal(await forced(), [[false, first]]);
  git(copy.target, "reset", "--quiet", "--hard", "HEAD~2");
  commit(copy.target, { "b.txt": "other" });
  assert.equal(await forced(), [[true, second]]);
  const log = git(app, "log", "-g", "--format=%H", "claudy/one/claudy/one");
  assert.ok(log.split("\n").includes(second));
});

test("reads branches of a repository as text", ({ root }) => {
  write(root, { HEAD: "ref: refs/heads/../../etc\n", "refs/heads/a": "x" });
  assert.equal(readRefs(root), {
    branches: {},
    head: null,
    detached: null,
    refused: ["a"],
    others: [],
    remotes: [],
    unread: 1,
  });
});

test.run();
