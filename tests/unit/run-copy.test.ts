// What claudy run --clone does after Claude has ended, on a fake engine whose helper
// containers run the real program.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { takeOut } from "../../lib/commands/run-copy.ts";
import { readSession } from "../../lib/instance/session-record.ts";
import { ensureCopy } from "../../lib/session/copy.ts";
import { checkOpening } from "../../lib/session/opening.ts";
import { main as claudy } from "../../scripts/claudy.ts";
import { type Served, serveEngine } from "../helper/served-engine.ts";
import { runWorkspace } from "../helper/workspace-program.ts";

interface Context extends Served {
  app: string;
}

const test = suite<Context>("run in a copy");

test.before.each(async (context) => {
  Object.assign(context, await serveEngine());
  context.engine.reply = runWorkspace;
  context.app = context.project("app");
  git(context.app, "init", "--quiet", "--initial-branch=main");
  writeFileSync(join(context.app, "a.txt"), "one\n");
  git(context.app, "add", "--all");
  git(context.app, "commit", "--quiet", "--message", "one");
});
test.after.each(({ close }) => close());

function git(directory: string, ...args: string[]): string {
  const who = ["-c", "user.name=a", "-c", "user.email=a@b"];
  return execFileSync("git", [...who, ...args], {
    cwd: directory,
    env: { PATH: process.env["PATH"], HOME: "/nonexistent" },
    encoding: "utf8",
  }).trim();
}

/** Makes a session with a copy; returns the copy's directory. */
async function copied(
  { instance, app, log }: Context,
  name: string,
): Promise<string> {
  const request = {
    directory: app,
    cwd: "/",
    name,
    copy: { changes: false, ignored: [] },
    profile: { name: undefined, build: false },
    mcp: undefined,
    claudeArguments: [],
    approveConfig: () => Promise.resolve(false),
    env: {},
  };
  const opening = await checkOpening(instance, request, log);
  await ensureCopy(instance, opening, request, log);
  return instance.home.workspaceTree(name);
}

test("fetches commits and files, and removes the session", async (context) => {
  const { instance, app } = context;
  const tree = await copied(context, "job");
  writeFileSync(join(tree, "b.txt"), "two\n");
  git(tree, "add", "b.txt");
  git(tree, "commit", "--quiet", "--message", "two");
  writeFileSync(join(tree, "c.txt"), "three\n");
  const taken = await takeOut(context, instance, "job");
  const branch = "refs/remotes/claudy/job/uncommitted";
  const made = { commits: 1, changed: 0, untracked: 1 };
  const branches = [branch];
  assert.equal(taken, { session: "job", kept: false, branch, branches, made });
  assert.is(git(app, "show", `${branch}:c.txt`), "three");
  assert.is(git(app, "log", "--format=%s", `${branch}~1`), "two\none");
  assert.is(readSession(instance, "job"), undefined);
  assert.not(existsSync(instance.home.workspace("job")));
});

test("names the branches that have changes, whichever is checked out", async (context) => {
  const { instance } = context;
  const told: string[] = [];
  const io = { log: (line: string) => void told.push(line) };
  const onFix = (tree: string) => {
    git(tree, "checkout", "--quiet", "-b", "fix");
    writeFileSync(join(tree, "b.txt"), "two\n");
    git(tree, "add", "b.txt");
    git(tree, "commit", "--quiet", "--message", tree);
    git(tree, "branch", "also");
    git(tree, "branch", "started", "HEAD~");
    git(tree, "checkout", "--quiet", "-");
  };
  onFix(await copied(context, "one"));
  const one = await takeOut(io, instance, "one");
  assert.match(one.branch ?? "", /^refs\/remotes\/claudy\/one\/(fix|also)$/);
  assert.equal([one.branches, one.kept], [[one.branch], false]);
  assert.not.match(told.join(), "None of these");
  const tree = await copied(context, "two");
  onFix(tree);
  writeFileSync(join(tree, "c.txt"), "three\n");
  const { branch, branches } = await takeOut(io, instance, "two");
  assert.is(branch, null);
  assert.is(branches.length, 2);
  assert.ok(branches.includes("refs/remotes/claudy/two/uncommitted"));
  assert.match(told.join(), "None of these branches has all");
  // The same as the commit that was fetched from another session.
  writeFileSync(join(await copied(context, "three"), "c.txt"), "three\n");
  const three = await takeOut(io, instance, "three");
  assert.is(three.branch, "refs/remotes/claudy/three/uncommitted");
});

test("leaves no reference of a session that has changed nothing", async (context) => {
  const { instance, app } = context;
  await copied(context, "idle");
  const taken = await takeOut(context, instance, "idle");
  assert.equal(taken, {
    session: "idle",
    kept: false,
    branch: null,
    branches: [],
    made: { commits: 0, changed: 0, untracked: 0 },
  });
  assert.is(git(app, "for-each-ref", "refs/remotes"), "");
  assert.is(readSession(instance, "idle"), undefined);
});

test("keeps a session that is asked for, and one that has more than could be fetched", async (context) => {
  const { instance } = context;
  const logged: string[] = [];
  await copied(context, "asked");
  assert.ok((await takeOut(context, instance, "asked", true)).kept);
  assert.ok(readSession(instance, "asked"));
  const tree = await copied(context, "stash");
  writeFileSync(join(tree, "a.txt"), "other\n");
  git(tree, "stash", "--quiet");
  const { kept, branch } = await takeOut(
    { log: (line) => logged.push(line) },
    instance,
    "stash",
  );
  assert.ok(kept);
  assert.is(branch, null);
  assert.match(logged.join("\n"), "stash has in its copy alone: 2 commits");
  // Such as by a session that has removed it.
  const broken = await copied(context, "broken");
  rmSync(join(broken, ".git"), { recursive: true });
  const failure = await takeOut(context, instance, "broken").catch((error) =>
    error
  );
  assert.match(failure.message, "Its .git is not a directory");
  assert.ok(existsSync(broken));
});

test("refuses what could not be fetched, and a session that exists", async (context) => {
  const { instance, app, run, project } = context;
  const plain = project("plain");
  const refused = async (code: number, text: string, ...argv: string[]) => {
    const ran = await run(claudy, ["run", ...argv, "hello"]);
    assert.is(ran.code, code, ran.stderr);
    assert.match(ran.stderr, text);
  };
  await refused(2, "--name and --keep need --clone", "--keep");
  await refused(2, "--name and --keep need --clone", "--name=job");
  await refused(2, "--with-ignored need --clone", "--with-changes");
  await refused(4, "is no repository", "--clone", "--project", plain);
  mkdirSync(join(app, "part"));
  const part = join(app, "part");
  await refused(2, "is a part of", "--clone", "--project", part);
  await copied(context, "job");
  const named = ["--clone", "--name=job", "--project", app];
  await refused(5, 'There is a session "job"', ...named);
  assert.ok(readSession(instance, "job"));
});

test.run();
