// Sessions that work in a copy of their project, on a fake engine whose helper containers run
// the real program.

import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import * as v from "valibot";
import { fetchAndMerge } from "../../lib/commands/copies.ts";
import { label } from "../../lib/instance/labels.ts";
import { readRecord } from "../../lib/instance/record.ts";
import {
  readSession,
  writeSession,
} from "../../lib/instance/session-record.ts";
import { findLeftovers, removeLeftovers } from "../../lib/doctor/prune.ts";
import { fit, Unfit } from "../../lib/pool/fit.ts";
import type { Failure } from "../../lib/std/errors.ts";
import { sessionName } from "../../lib/project/project.ts";
import { renameSession } from "../../lib/session/move.ts";
import { removeSession, stopSession } from "../../lib/session/session.ts";
import { waitFor } from "../../lib/std/wait.ts";
import { sweepCopies, sweepCopy } from "../../lib/workspace/abandoned.ts";
import { diffCopy } from "../../lib/workspace/diff.ts";
import { fetchCopy } from "../../lib/workspace/fetch.ts";
import { pullIntoCopy } from "../../lib/workspace/pull.ts";
import { makeScratch } from "../../lib/workspace/scratch.ts";
import { refuseLoss, unfetchedIn } from "../../lib/workspace/unfetched.ts";
import { perform } from "../../lib/workspace/container.ts";
import { Limits } from "../../lib/workspace/git/limits.ts";
import { copyOf, measureCopies } from "../../lib/workspace/workspace.ts";
import { failureOf } from "../helper/copied.ts";
import {
  commit,
  type Context,
  git,
  open,
  opened,
  prepare,
} from "../helper/opened-copy.ts";
import { runWorkspace } from "../helper/workspace-program.ts";

const test = suite<Context>("copies");

test.before.each(prepare);
test.after.each(({ end }) => end());

test("opens sessions in copies of their own", async (context) => {
  const { instance, engine, app } = context;
  const helpers: string[] = [];
  engine.reply = (line, container, caller) => {
    const { HostConfig: host, User } = container.spec;
    assert.is(host?.NetworkMode, "none");
    assert.equal(host?.CapDrop, ["ALL"]);
    assert.is(User, `${instance.owner.uid}:${instance.owner.gid}`);
    helpers.push(
      (host?.Mounts ?? []).map(({ Target, ReadOnly }) =>
        `${Target}${ReadOnly ? "" : " rw"}`
      ).join(", "),
    );
    return runWorkspace(line, container, caller);
  };
  const [one, two] = await Promise.all([
    opened(context, { name: "one-copy" }),
    opened(context),
  ]);
  assert.is(two.record.name, `${sessionName(app)}-c1`);
  assert.equal(helpers, Array(2).fill("/out rw, /source/git, /source/tree"));
  for (const { ready, record, tree } of [one, two]) {
    const worker = engine.find(ready.id);
    const workspace = worker?.spec.HostConfig?.Mounts?.find(({ Target }) =>
      Target === "/workspace"
    );
    assert.is(workspace?.Source, tree);
    // It belongs to the user's project.
    assert.is(worker?.spec.Labels?.[label.project], app);
    assert.is(ready.project, app);
    assert.is(record.copy, true);
    assert.is(record.project, app);
    const { project, workspace: mounted } =
      readRecord(instance, ready.worker) ??
        {};
    assert.equal([project?.path, mounted], [app, tree]);
    assert.is(git(tree, "branch", "--show-current"), `claudy/${record.name}`);
    assert.equal(readdirSync(instance.home.workspace(record.name)).sort(), [
      "base.json",
      "tree",
    ]);
    assert.is(
      readdirSync(join(instance.home.home, "sessions/guard")).length,
      0,
    );
  }
  // Its configuration is not protected from the worker: only git in containers reads it.
  const binds = engine.find(two.ready.id)?.spec.HostConfig as {
    ReadonlyPaths?: string[];
  };
  assert.not(binds.ReadonlyPaths?.some((path) => path.includes("/workspace")));
  const normal = await open(context, { copy: undefined });
  assert.is(normal?.session, sessionName(app));
});

test("opens the copy of a session again, as it was left", async (context) => {
  const { instance, log } = context;
  const { record, tree } = await opened(context, { name: "again" });
  writeFileSync(join(tree, "mine.txt"), "mine");
  await stopSession(instance, "again", log);
  const second = await opened(context, { name: "again", copy: undefined });
  assert.is(second.ready.start, "cold");
  assert.is(readFileSync(join(tree, "mine.txt"), "utf8"), "mine");
  const changes = { changes: true, ignored: [] };
  const { message } = await failureOf(
    open(context, { name: "again", copy: changes }),
  );
  assert.match(message, "--with-changes and --with-ignored have no effect");
  await open(context, { copy: undefined, name: "normal" });
  const normal = await failureOf(open(context, { name: "normal" }));
  assert.match(normal.message, `works in ${context.app} itself`);
  const [again, other] = await measureCopies(instance, [
    { name: "again", copy: true },
    { name: "normal" },
  ]);
  assert.is(again?.workspace?.path, tree);
  assert.ok((again?.workspace?.sizeBytes ?? 0) > 100);
  assert.equal(other, { name: "normal" });
  // Renamed, it has its copy.
  await stopSession(instance, "again", log);
  const renamed = await renameSession(instance, record, "other-name", log);
  assert.ok(existsSync(join(copyOf(instance, renamed.name).path, "mine.txt")));
  await removeSession(instance, renamed.name, log);
  assert.not(existsSync(instance.home.workspace(renamed.name)));
});

test("sees a change of the same size within the second of a commit", async (context) => {
  const { instance, log } = context;
  const { record, tree } = await opened(context, { name: "quick" });
  commit(tree, "a.txt", "two\n");
  writeFileSync(join(tree, "a.txt"), "six\n");
  // What is made of the index now is younger than the file.
  const { mtimeMs } = statSync(join(tree, "a.txt"));
  const isOver = () => Promise.resolve(Date.now() - mtimeMs > 1000);
  await waitFor(isOver, { for: "the next second", timeoutMs: 5000 });
  const { commits, changed } = await unfetchedIn(instance, record, log);
  assert.equal({ commits, changed }, { commits: 1, changed: 1 });
});

test("fetches, compares and pulls", async (context) => {
  const { instance, app, log } = context;
  const { record, tree } = await opened(context, { name: "work" });
  const id = commit(tree, "s.txt", "session\n");
  writeFileSync(join(tree, "u.txt"), "not committed\n");
  assert.equal(
    await unfetchedIn(instance, record, log).then(
      ({ commits, changed, untracked }) => [commits, changed, untracked],
    ),
    [1, 0, 1],
  );
  const { text, left } = await diffCopy(instance, record, {
    changes: false,
    stat: true,
  }, log);
  assert.match(text, /^ s\.txt \| 1 \+/);
  assert.is(left, 1);
  const fetched = await fetchCopy(instance, record, { changes: true }, log);
  assert.is(fetched.head, "refs/remotes/claudy/work/claudy/work");
  assert.is(git(app, "rev-parse", fetched.head ?? ""), id);
  assert.is(git(app, "show", `${fetched.changes}:u.txt`), "not committed");
  assert.is(git(app, "status", "--porcelain"), "");
  // Nothing would be lost now, until something else changes.
  const unfetched = async () => {
    const { commits, changed, untracked } = await unfetchedIn(
      instance,
      record,
      log,
    );
    return commits + changed + untracked;
  };
  assert.is(await unfetched(), 0);
  writeFileSync(join(tree, "u.txt"), "changed again\n");
  assert.is(await unfetched(), 1);
  // The user has removed what was fetched: all is fetched again.
  for (
    const name of git(
      app,
      "for-each-ref",
      "--format=%(refname)",
      "refs/remotes",
    ).split("\n")
  ) {
    git(app, "update-ref", "-d", name);
  }
  git(app, "reflog", "expire", "--expire=now", "--all");
  git(app, "gc", "--quiet", "--prune=now");
  const next = commit(tree, "t.txt", "more\n");
  await fetchCopy(instance, record, { changes: false }, log);
  assert.is(git(app, "rev-parse", "claudy/work/claudy/work"), next);
  git(app, "fsck", "--strict");
  const users = commit(app, "user.txt", "user\n");
  const pulled = await pullIntoCopy(instance, record, log);
  assert.equal(pulled.map(({ branch, commits }) => [branch, commits]), [[
    "main",
    1,
  ]]);
  assert.is(git(tree, "rev-parse", "host/main"), users);
  assert.is(git(tree, "rev-parse", "HEAD"), next);
  assert.equal(await pullIntoCopy(instance, record, log), []);
  assert.equal(readdirSync(instance.home.workspace("work")).sort(), [
    "base.json",
    "tree",
  ]);
});

test("names the option for a step that takes too long, and a kill for want of memory", async (context) => {
  const { instance, app, engine, log } = context;
  const { record } = await opened(context);
  const step = () => {
    const scratch = makeScratch(instance, record.name, "reading");
    return failureOf(
      perform(instance, v.unknown(), scratch, {
        subject: "Cannot fetch",
        user: instance.owner,
        mounts: [],
        work: {
          do: "fork",
          tree: app,
          target: scratch.path,
          branch: "x",
          live: false,
        },
        log,
        limits: {
          timeoutMs: 300,
          exceeded: (what) => new Limits().exceeded(what),
        },
      }).finally(scratch.remove),
    );
  };
  engine.reply = () => new Promise(() => {});
  const late = await step() as Failure;
  assert.is(late.message, "Cannot fetch: it took longer than 0 s");
  assert.match(late.hint ?? "", "--max-size 4g");
  engine.reply = () => Promise.resolve("");
  const killed = await step();
  assert.match(killed.message, "was killed, perhaps for want of memory");
});

test("refuses a directory that was replaced while it was mounted", async (context) => {
  const { app, engine, root } = context;
  const secret = join(root, "secret");
  mkdirSync(secret);
  git(secret, "init", "--quiet");
  commit(secret, "s", "secret");
  engine.reply = (line, container, caller) => {
    renameSync(app, `${app}.away`);
    symlinkSync(secret, app);
    return runWorkspace(line, container, caller);
  };
  const { message } = await failureOf(open(context));
  assert.match(message, "was replaced while it was mounted");
  assert.equal(readdirSync(context.instance.home.kept), []);
});

test("leaves nothing of a copy that fails, and of a session that cannot start", async (context) => {
  const { instance, engine } = context;
  const left = () => [
    ...readdirSync(instance.home.workspaces),
    ...readdirSync(instance.home.kept),
    ...readdirSync(instance.home.claude),
  ];
  engine.reply = () => Promise.resolve("OCI runtime error");
  assert.match((await failureOf(open(context))).message, "OCI runtime error");
  engine.reply = runWorkspace;
  engine.refuses.set("start failing", 500);
  await failureOf(open(context, { name: "failing" }));
  await failureOf(open(context, {
    name: "other",
    approveConfig: () => Promise.reject(new Error("no")),
    profile: { name: "unknown-profile", build: false },
  }));
  assert.equal(left(), []);
});

test("removes what killed commands have left, and nothing else", async (context) => {
  const { instance, engine } = context;
  const { home } = instance;
  const plant = (path: string) => {
    mkdirSync(join(home.workspaces, path), { recursive: true });
    return join(home.workspaces, path);
  };
  const { record } = await opened(context, { name: "live" });
  const dead = plant("live/.reading-000000000001");
  const young = plant("live/.reading-000000000002");
  const running = plant("live/.making-000000000003");
  engine.add("fake-helper-000000000003");
  const second = plant("live/.reading-000000000005");
  engine.add("fake-helper-000000000005-2");
  plant(".removed-000000000004/tree/deep");
  plant("unsaved/tree");
  const killed = plant("killed/.making-000000000006");
  engine.add("fake-helper-000000000006", { state: "created" });
  plant("lost/tree");
  mkdirSync(join(home.claude, "lost"));
  const now = plant("now");
  for (
    const path of [
      dead,
      running,
      second,
      killed,
      home.workspace("killed"),
      home.workspace("unsaved"),
      home.workspace("lost"),
    ]
  ) {
    utimesSync(path, 1, 1);
  }
  await sweepCopies(instance);
  assert.equal([dead, young, running, second, now].map(existsSync), [
    false,
    true,
    true,
    true,
    true,
  ]);
  assert.equal(readdirSync(home.workspaces).sort(), ["live", "lost", "now"]);
  assert.not(engine.find("fake-helper-000000000006"));
  assert.ok(existsSync(join(copyOf(instance, record.name).path, "a.txt")));
  // Another command has just removed it.
  await sweepCopy(instance, "gone");
  // The name of the lost one is not taken for another session.
  assert.is(await open(context, { name: "lost" }), undefined);
  rmSync(home.workspaceTree("live"), { recursive: true });
  await stopSession(instance, "live", context.log);
  const missing = await failureOf(
    open(context, { name: "live", copy: undefined }),
  );
  assert.match(missing.message, 'The copy of session "live" is missing');
});

test("another command leaves alone what a command makes that is between two steps", async (context) => {
  const { instance, engine } = context;
  const directory = instance.home.workspace("slow");
  engine.reply = async (line, container, caller) => {
    const answer = await runWorkspace(line, container, caller);
    const scratch = join(directory, readdirSync(directory)[0] ?? "");
    // Its container has ended, and began long ago.
    container.state = "exited";
    for (const path of [scratch, directory]) utimesSync(path, 1, 1);
    const isTouched = () => statSync(scratch).mtimeMs > 1000;
    await waitFor(isTouched, { for: "a sign of life", timeoutMs: 3000 });
    await sweepCopies(instance);
    return answer;
  };
  const { tree } = await opened(context, { name: "slow" });
  assert.is(readFileSync(join(tree, "a.txt"), "utf8"), "one\n");
});

test("looks at a copy again before it is removed, when the session is stopped", async (context) => {
  const { instance, engine, log } = context;
  const { tree, ready } = await opened(context, { name: "idea" });
  const remove = () =>
    removeSession(instance, "idea", log, async () => {
      assert.not(engine.find(ready.id));
      await refuseLoss(instance, { name: "idea" }, log);
    });
  writeFileSync(join(tree, "late.txt"), "late");
  const { message } = await failureOf(remove());
  assert.is(message, 'Session "idea" has in its copy alone: 1 untracked file');
  assert.ok(existsSync(join(tree, "late.txt")));
  assert.ok(readSession(instance, "idea"));
  rmSync(join(tree, "late.txt"));
  await remove();
  assert.not(existsSync(tree));
});

test("prune removes copies of old sessions and of none, unless they have something alone", async (context) => {
  const { instance, told, log, engine } = context;
  const { home } = instance;
  const options = {
    olderThanMs: 60_000,
    sessions: true,
    caches: false,
    allInstances: false,
  };
  const find = async (change = {}) =>
    (await findLeftovers(instance, { ...options, ...change }, log))
      .filter(({ kind }) => kind !== "image");
  const names = async () => (await find()).map(({ name }) => name).sort();
  for (const name of ["plain", "worked", "lost", "lost-work"]) {
    const { record, tree } = await opened(context, { name });
    await stopSession(instance, name, log);
    if (name.endsWith("work") || name === "worked") {
      commit(tree, "w.txt", "work\n");
    }
    if (name.startsWith("lost")) rmSync(home.session(name));
    else writeSession(instance, { ...record, usedAt: "2020-01-01T00:00:00Z" });
    utimesSync(home.workspaceBase(name), 1, 1);
  }
  const half = join(home.workspaces, "half", ".making-000000000001");
  mkdirSync(half, { recursive: true });
  writeFileSync(join(half, "big"), "x".repeat(1e6));
  const set = join(home.workspaces, ".removed-000000000002");
  mkdirSync(set);
  assert.equal(await names(), [set, home.workspace("lost"), "plain"]);
  // It may be in use until then.
  for (const path of [half, home.workspace("half")]) utimesSync(path, 1, 1);
  told.length = 0;
  const found = await find();
  const size = (name: string) =>
    found.find((leftover) => leftover.name === name)?.sizeBytes ?? 0;
  assert.ok(size(home.workspace("half")) >= 1e6);
  assert.ok(size("plain") > 10_000);
  assert.match(
    told.join("\n"),
    /^Kept: session worked, .*: its copy alone has 1 commit$/m,
  );
  assert.match(
    told.join("\n"),
    /lost-work, .*, whose session is gone: its copy alone has 1 commit$/m,
  );
  assert.is(found.length, 4);
  // Without a flag, no session.
  assert.is((await find({ sessions: false })).length, 3);
  // What has changed since is kept.
  writeFileSync(join(home.workspaceTree("lost"), "new.txt"), "new\n");
  const { removed, errors } = await removeLeftovers(
    instance,
    found,
    options,
    log,
  );
  assert.equal(errors, []);
  assert.is(removed.length, 3);
  assert.equal(readdirSync(home.workspaces).sort(), [
    "lost",
    "lost-work",
    "worked",
  ]);
  assert.is(readSession(instance, "plain"), undefined);
  // A copy that cannot be examined is kept.
  engine.reply = () => Promise.resolve("OCI runtime error");
  assert.equal(await names(), []);
  assert.match(told.at(-1) ?? "", "OCI runtime error");
});

test("warm workers get the copy of their session, and nothing else of HAL9000_HOME", async (context) => {
  const { instance, app } = context;
  const { home } = instance;
  await opened(context, { name: "warm" });
  const request = {
    op: "claim" as const,
    id: "00000000-0000-0000-0000-000000000000",
    instance: instance.prefix,
    directory: home.workspaceTree("warm"),
    copyOf: app,
    session: "warm",
    allowAnyPath: false,
    limits: { memoryBytes: 1024 ** 3, cpus: 1, pids: 100 },
    relay: "off" as const,
  };
  const recipe = {
    limits: { memoryBytes: 1024 ** 3, cpus: 1, pids: 100 },
    lacksLfs: false,
    network: "container:net",
    relay: false,
    caches: [],
  };
  const fitting = await fit(instance, request, recipe);
  assert.is(fitting.project.path, home.workspaceTree("warm"));
  assert.equal([fitting.mounts, fitting.snapshot], [[], undefined]);
  mkdirSync(home.workspace("linked"));
  symlinkSync(home.secrets, home.workspaceTree("linked"));
  for (
    const change of [
      { directory: home.secrets },
      { directory: home.workspace("warm") },
      { directory: `${home.workspaceTree("warm")}/../../../secrets` },
      { session: "another" },
      { session: undefined },
      { session: "linked", directory: home.workspaceTree("linked") },
      { copyOf: undefined },
    ]
  ) {
    const error = await failureOf(
      fit(instance, { ...request, ...change }, recipe),
    );
    assert.instance(error, Unfit);
  }
});

test("says what a directory is that cannot be copied", async (context) => {
  const { app, project } = context;
  const part = project("app/part");
  const inside = await failureOf(open(context, { directory: part }));
  assert.match(inside.message, `is a part of the repository ${app}`);
  const odd = project("odd");
  symlinkSync(join(app, ".git"), join(odd, ".git"));
  const link = await failureOf(open(context, { directory: odd }));
  assert.match(link.message, "neither a directory nor a .git file");
  // A worktree's repository is copied only with the user's consent.
  const tree = join(context.root, "tree");
  git(app, "worktree", "add", "--quiet", "-b", "side", tree);
  const refused = await failureOf(open(context, { directory: tree }));
  assert.match(refused.message, "Refused to mount");
  const copied = await opened(context, {
    directory: tree,
    repository: { allowed: true },
  });
  assert.is(git(copied.tree, "log", "--format=%s"), "a.txt");
  await fetchCopy(
    context.instance,
    copied.record,
    { changes: false },
    context.log,
  );
  // Neither is another one written that the project refers to since.
  const other = join(context.root, "other");
  mkdirSync(other);
  git(other, "init", "--quiet");
  commit(other, "o", "o");
  git(other, "worktree", "add", "--quiet", join(context.root, "theirs"));
  rmSync(tree, { recursive: true });
  renameSync(join(context.root, "theirs"), tree);
  git(other, "worktree", "repair", tree);
  const changed = await failureOf(
    fetchCopy(context.instance, copied.record, { changes: false }, context.log),
  );
  assert.match(changed.message, `is now a part of ${other}/.git`);
  const { record } = await opened(context, { directory: project("plain") });
  const nowhere = await failureOf(
    fetchCopy(context.instance, record, { changes: true }, context.log),
  );
  assert.match(nowhere.message, "is no repository");
});

test("merges in the project, also from a hook of another repository", async (context) => {
  const { instance, app, root } = context;
  const { record, tree } = await opened(context);
  const id = commit(tree, "b.txt", "two\n");
  const other = join(root, "other");
  mkdirSync(other);
  git(other, "init", "--quiet");
  const io = {
    env: {
      PATH: process.env["PATH"],
      GIT_DIR: join(other, ".git"),
      GIT_INDEX_FILE: join(other, ".git/index"),
    },
    log: context.log,
  };
  const code = await fetchAndMerge(io, instance, record, { changes: false });
  assert.is(code, 0);
  assert.is(git(app, "rev-parse", "main"), id);
});

test.run();
