// claudy merge and claudy pick: the user's own git merges what was fetched, and sessions that
// were not picked are not removed with what only they have.

import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { fetchAndMerge, textToMerge } from "../../lib/commands/copies.ts";
import { pick } from "../../lib/commands/pick.ts";
import {
  readSession,
  writeSession,
} from "../../lib/instance/session-record.ts";
import { forkSession } from "../../lib/session/fork.ts";
import type { Failure } from "../../lib/std/errors.ts";
import { failureOf } from "../helper/copied.ts";
import {
  commit,
  type Context,
  git,
  opened,
  prepare,
} from "../helper/opened-copy.ts";

const test = suite<Context>("copy-merging");

test.before.each(prepare);
test.after.each(({ end }) => end());

/** At no terminal. */
function ioFor({ log }: Context) {
  return {
    env: {
      PATH: process.env["PATH"],
      HOME: "/nonexistent",
      GIT_COMMITTER_NAME: "u",
      GIT_COMMITTER_EMAIL: "u@v",
      GIT_AUTHOR_NAME: "u",
      GIT_AUTHOR_EMAIL: "u@v",
    },
    log,
    isInteractive: false,
    isConfirmed: () => Promise.resolve(false),
  };
}

/** Two forks of a session with a commit; the first one has another one. */
async function forks(context: Context, name = "first") {
  const { instance, log } = context;
  const { record, tree } = await opened(context, { name });
  commit(tree, "shared.txt", `${name}\n`);
  const { sessions } = await forkSession(instance, record, {
    count: 2,
    inherit: undefined,
  }, log);
  const found = sessions.map((name) => {
    const session = readSession(instance, name);
    if (!session) throw new Error("there is no session");
    return { session, tree: instance.home.workspaceTree(name) };
  });
  const [one, two] = found;
  if (!one || !two) throw new Error("there are no forks");
  commit(one.tree, "done.txt", `${name}\n`);
  return { one, two };
}

test("pick --yes refuses to remove a session that alone has commits or files", async (context) => {
  const { instance, app } = context;
  const { one, two } = await forks(context);
  commit(two.tree, "other.txt", "other\n");
  writeFileSync(join(two.tree, "draft.txt"), "draft\n");
  const io = ioFor(context);
  const { kind, message, hint } = await failureOf(
    pick(io, instance, one.session, { yes: true }),
  ) as Failure;
  assert.is(kind, "unsafe");
  assert.is(
    message,
    'Session "first-f2" has in its copy alone: 1 commit, 1 untracked file',
  );
  assert.match(hint ?? "", "claudy fetch --with-changes NAME");
  assert.match(hint ?? "", "claudy pick --force first-f1");
  // Nothing was merged either.
  assert.not(existsSync(join(app, "done.txt")));
  assert.ok(existsSync(two.tree));
  assert.is(await pick(io, instance, one.session, { force: true }), 0);
  assert.ok(existsSync(join(app, "done.txt")));
  assert.not(existsSync(two.tree));
  assert.ok(existsSync(one.tree));
  assert.ok(readSession(instance, "first"));
});

test("pick --yes removes a session that has nothing of its own", async (context) => {
  const { instance, app } = context;
  const { one, two } = await forks(context);
  const io = ioFor(context);
  assert.is(await pick(io, instance, one.session, {}), 0);
  assert.ok(existsSync(join(app, "shared.txt")));
  assert.ok(existsSync(two.tree));
  assert.is(await pick(io, instance, one.session, { yes: true }), 0);
  assert.not(existsSync(two.tree));
});

test("pick tells what would be lost, and asks", async (context) => {
  const { instance, log } = context;
  const { one, two } = await forks(context);
  writeFileSync(join(two.tree, "draft.txt"), "draft\n");
  const told: string[] = [];
  const io = {
    ...ioFor(context),
    isInteractive: true,
    log: (line: string) => void (told.push(line), log(line)),
    isConfirmed: (question: string) => {
      told.push(question);
      return Promise.resolve(false);
    },
  };
  assert.is(await pick(io, instance, one.session, {}), 0);
  assert.equal(told.slice(-2), [
    'Session "first-f2" has in its copy alone: 1 untracked file',
    "Remove the others, with all of this: first-f2?",
  ]);
  assert.ok(existsSync(two.tree));
});

test("pick removes nothing that a session has made in the meantime", async (context) => {
  const { instance, app } = context;
  const { one, two } = await forks(context);
  const io = {
    ...ioFor(context),
    isInteractive: true,
    isConfirmed: () => {
      writeFileSync(join(two.tree, "late.txt"), "late\n");
      return Promise.resolve(true);
    },
  };
  const asked = await failureOf(pick(io, instance, one.session, {}));
  const lost = 'Session "first-f2" has in its copy alone: 1 untracked file';
  assert.is(asked.message, lost);
  assert.ok(existsSync(join(two.tree, "late.txt")));
  // Now it is shown before the question.
  const shown = { ...io, isConfirmed: () => Promise.resolve(true) };
  assert.is(await pick(shown, instance, one.session, {}), 0);
  assert.not(existsSync(two.tree));
  const other = await forks(context, "second");
  const hook = `#!/bin/sh\ntouch ${join(other.two.tree, "late.txt")}\n`;
  mkdirSync(join(app, ".git/hooks"), { recursive: true });
  const file = join(app, ".git/hooks/post-merge");
  writeFileSync(file, hook, { mode: 0o755 });
  const merged = await failureOf(
    pick(ioFor(context), instance, other.one.session, { yes: true }),
  );
  assert.match(merged.message, 'Session "second-f2" has in its copy alone');
  assert.ok(existsSync(other.two.tree));
});

test("pick keeps forks of another project's session with the same name", async (context) => {
  const { instance, root } = context;
  const { one, two } = await forks(context);
  writeSession(instance, { ...two.session, project: join(root, "other") });
  const io = ioFor(context);
  assert.is(await pick(io, instance, one.session, { force: true }), 0);
  assert.ok(existsSync(two.tree));
});

/** A session that has changed a.txt, and its branch as it is fetched. */
async function changed(context: Context, name = "idea") {
  const { record, tree } = await opened(context, { name });
  const id = commit(tree, "a.txt", "session\n");
  const act = () =>
    fetchAndMerge(ioFor(context), context.instance, record, { changes: false });
  return { id, act, ref: `refs/remotes/claudy/${name}/claudy/${name}` };
}

const textOf = (directory: string, name: string) =>
  readFileSync(join(directory, name), "utf8");

test("merge leaves a conflict to git, which can be aborted or resolved", async (context) => {
  const { app } = context;
  const { id, act, ref } = await changed(context);
  const users = commit(app, "a.txt", "user\n");
  assert.is(await act(), 1);
  assert.is(git(app, "status", "--porcelain"), "UU a.txt");
  assert.match(textOf(app, "a.txt"), /^<<<<<<< HEAD\nuser\n=======\nsession/);
  assert.match(textOf(app, "a.txt"), `>>>>>>> ${ref}`);
  assert.is(git(app, "rev-parse", "MERGE_HEAD"), id);
  git(app, "merge", "--abort");
  assert.is(git(app, "status", "--porcelain"), "");
  assert.is(textOf(app, "a.txt"), "user\n");
  assert.is(git(app, "rev-parse", "HEAD"), users);
  // Again, and resolved. In between, git refuses another merge.
  assert.is(await act(), 1);
  assert.is(await act(), 128);
  commit(app, "a.txt", "both\n");
  assert.is(git(app, "rev-parse", "HEAD^2"), id);
  assert.is(await act(), 0);
  git(app, "fsck", "--strict");
});

test("merge keeps what the user has not committed", async (context) => {
  const { app } = context;
  const { id, act, ref } = await changed(context);
  const before = git(app, "rev-parse", "HEAD");
  writeFileSync(join(app, "a.txt"), "not committed\n");
  assert.is(await act(), 1);
  assert.is(textOf(app, "a.txt"), "not committed\n");
  assert.is(git(app, "rev-parse", "HEAD"), before);
  assert.not(existsSync(join(app, ".git/MERGE_HEAD")));
  // It is fetched nevertheless.
  assert.is(git(app, "rev-parse", ref), id);
  // Another file is not in the way.
  git(app, "checkout", "--quiet", "a.txt");
  writeFileSync(join(app, "draft.txt"), "draft\n");
  assert.is(await act(), 0);
  assert.is(textOf(app, "a.txt"), "session\n");
  assert.is(git(app, "status", "--porcelain"), "?? draft.txt");
});

test("merges into a branch without a commit, a detached HEAD and a worktree", async (context) => {
  const { app, root } = context;
  const { id, act } = await changed(context);
  const main = git(app, "rev-parse", "main");
  git(app, "checkout", "--quiet", "--detach");
  assert.is(await act(), 0);
  assert.is(git(app, "rev-parse", "HEAD"), id);
  // No branch of the user has moved.
  assert.is(git(app, "rev-parse", "main"), main);
  // A branch that another worktree has checked out stays as well.
  git(app, "checkout", "--quiet", "-b", "here", main);
  git(app, "worktree", "add", "--quiet", join(root, "there"), "main");
  assert.is(await act(), 0);
  assert.is(git(app, "rev-parse", "here"), id);
  assert.is(git(app, "rev-parse", "main"), main);
  assert.is(textOf(join(root, "there"), "a.txt"), "one\n");
  assert.is(git(join(root, "there"), "status", "--porcelain"), "");
  git(app, "checkout", "--quiet", "--orphan", "unborn");
  git(app, "rm", "--quiet", "-r", "--force", ".");
  assert.is(await act(), 0);
  assert.is(git(app, "rev-parse", "unborn"), id);
  assert.is(textOf(app, "a.txt"), "session\n");
});

test("merge prints what git prints, and returns its exit code", async (context) => {
  const { app } = context;
  const { act, ref } = await changed(context);
  await act();
  git(app, "reset", "--quiet", "--hard", "HEAD~");
  commit(app, "a.txt", "user\n");
  const code = `import { merge } from "${new URL(
    "../../lib/commands/copies.ts",
    import.meta.url,
  )}"; process.exit(await merge(${
    JSON.stringify(app)
  }, "${ref}", process.env));`;
  const { status, stdout } = spawnSync(process.execPath, [
    ...("Deno" in globalThis ? ["eval"] : ["--input-type=module", "--eval"]),
    `import process from "node:process"; ${code}`,
  ], { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
  assert.is(status, 1);
  assert.match(stdout, "CONFLICT (content): Merge conflict in a.txt");
  assert.match(stdout, "Automatic merge failed; fix conflicts");
});

test("pull names the branch to merge, if there is one", () => {
  assert.is(textToMerge([{ branch: "main" }]), "merge host/main");
  const two = [{ branch: "main" }, { branch: "side" }];
  assert.is(textToMerge(two), "merge host/BRANCH");
});

interface Ended {
  /** What it has printed. */
  text: string;
  /** From the moment when it began. */
  ms: number;
}

/** Fetches and merges in a process of its own, which is killed after a time. */
async function killed(
  { root, app }: Context,
  session: string,
  afterMs: number,
): Promise<Ended> {
  const program = spawn(process.execPath, [
    ...("Deno" in globalThis ? ["run", "--allow-all", "--no-lock"] : []),
    ...[join(import.meta.dirname ?? "", "../helper/merge-copy.ts")],
    ...[root, session],
  ], { cwd: app, detached: true, stdio: ["ignore", "pipe", "ignore"] });
  let text = "";
  let begun = 0;
  let late: ReturnType<typeof setTimeout> | undefined;
  const kill = () => {
    // The container ends with the command, but not the user's git.
    const target = text.includes("fetched") ? program.pid : -(program.pid ?? 0);
    try {
      process.kill(target ?? 0, "SIGKILL");
    } catch {
      // It has just ended.
    }
  };
  program.stdout.on("data", (chunk) => {
    text += String(chunk);
    if (begun !== 0 || !text.includes("begin")) return;
    begun = performance.now();
    late = setTimeout(kill, afterMs);
  });
  await once(program, "close"); // also of git, which has the same output
  clearTimeout(late);
  return { text, ms: performance.now() - begun };
}

test("a kill at ten moments of fetch and merge leaves nothing half-made", async (context) => {
  const { app, instance } = context;
  const { record, tree } = await opened(context, { name: "idea" });
  for (let at = 0; at < 300; at++) {
    writeFileSync(join(tree, `${at}.txt`), `${at}\n`.repeat(200));
  }
  const tip = commit(tree, "b.txt", "session\n");
  const before = commit(app, "mine.txt", "mine\n");
  const base = readFileSync(instance.home.workspaceBase("idea"));
  const ref = "refs/remotes/claudy/idea/claudy/idea";
  const whole = await killed(context, "idea", 60_000);
  assert.match(whole.text, "merged 0");
  let kills = 0;
  for (const part of [0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.9]) {
    git(app, "reset", "--quiet", "--hard", before);
    if (git(app, "for-each-ref", ref)) git(app, "update-ref", "-d", ref);
    git(app, "reflog", "expire", "--expire=now", "--all");
    // So that it has no object of the fetch before.
    git(app, "repack", "-a", "-d", "--quiet");
    git(app, "prune", "--expire=now");
    writeFileSync(instance.home.workspaceBase("idea"), base);
    const { text } = await killed(context, "idea", whole.ms * part);
    git(app, "fsck", "--strict", "--no-dangling");
    assert.is(git(app, "status", "--porcelain"), "");
    const head = git(app, "rev-parse", "HEAD");
    if (head === before) assert.not(text.includes("merged"));
    else assert.is(git(app, "rev-parse", "HEAD^2"), tip);
    // All or nothing was fetched.
    const got = git(app, "for-each-ref", "--format=%(objectname)", ref);
    assert.ok(got === "" || got === tip, got);
    if (text.includes("fetched")) assert.is(got, tip);
    else assert.is(head, before);
    if (text === "begin\n") kills++;
    git(app, "prune", "--expire=now");
    const objects = readdirSync(join(app, ".git/objects"));
    assert.equal(objects.filter((name) => /^tmp/.test(name)), []);
    for (const name of readdirSync(instance.home.workspace("idea"))) {
      utimesSync(join(instance.home.workspace("idea"), name), 1, 1);
    }
    const lock = join(app, ".git", `${ref}.lock`);
    if (existsSync(lock)) utimesSync(lock, 1, 1);
  }
  assert.ok(kills > 2);
  // The next fetch removes what was left.
  assert.is(
    await fetchAndMerge(ioFor(context), instance, record, { changes: false }),
    0,
  );
  assert.equal(readdirSync(instance.home.workspace("idea")).sort(), [
    "base.json",
    "tree",
  ]);
  assert.equal(
    readdirSync(join(app, ".git")).filter((n) => /lock/.test(n)),
    [],
  );
});

test.run();
