// Forks of sessions, on a fake engine whose helper containers run the real program.

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
import { inTurn } from "../../lib/commands/fork.ts";
import { readScope, writeScope } from "../../lib/egress/store.ts";
import { readSession } from "../../lib/instance/session-record.ts";
import { forkSession } from "../../lib/session/fork.ts";
import { stopSession } from "../../lib/session/session.ts";
import { waitFor } from "../../lib/std/wait.ts";
import { readBudgets, setBudget } from "../../lib/usage/budgets.ts";
import { thawAbandoned, whileFrozen } from "../../lib/workspace/frozen.ts";
import { forkCopy } from "../../lib/workspace/make.ts";
import { reserve } from "../../lib/workspace/scratch.ts";
import { unfetchedIn } from "../../lib/workspace/unfetched.ts";
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

const test = suite<Context>("forks");

test.before.each(prepare);
test.after.each(({ end }) => end());

/** Writes a conversation into a session's home. */
function converse(
  { instance }: Context,
  session: string,
  id: string,
  text: string,
) {
  const directory = join(instance.home.claude, session, "projects/-workspace");
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, `${id}.jsonl`), text);
}

test("forks a session with its files, conversation, rules and budgets", async (context) => {
  const { instance, engine, log } = context;
  const { ready, record, tree } = await opened(context, { name: "first" });
  const id = commit(tree, "s.txt", "session\n");
  writeFileSync(join(tree, "draft.txt"), "draft\n");
  writeFileSync(join(tree, ".git/index.lock"), "");
  converse(context, "first", "11-22", '{"a":1}\n{"half');
  const budget = {
    session: "first",
    project: null,
    measure: "tokens" as const,
    limit: 9,
    per: "day" as const,
  };
  setBudget(instance, budget);
  writeScope(instance, { session: "first" }, { preset: "closed", rules: [] });
  const states: (string | undefined)[] = [];
  const stateOf = () => engine.find(ready.id)?.state;
  engine.reply = (line, container, { tell, nextLine }) => {
    states.push(stateOf());
    return runWorkspace(line, container, {
      tell: (message) => {
        if (message.includes("freeze")) {
          // Until then, the session goes on.
          writeFileSync(join(tree, "draft.txt"), "later\n");
          converse(context, "first", "11-22", '{"a":1}\n{"b":2}\n{"half');
        }
        if (message.includes("thaw")) states.push(stateOf());
        tell(message);
      },
      nextLine,
    });
  };
  const forked = await forkSession(instance, record, {
    count: 2,
    inherit: undefined,
  }, log);
  assert.equal(forked.sessions, ["first-f1", "first-f2"]);
  // For the end of the first copy alone; the second is made from that one.
  assert.equal(states, ["running", "paused", "running"]);
  assert.ok(forked.frozenMs > 0);
  for (const session of forked.sessions) {
    const own = instance.home.workspaceTree(session);
    assert.is(git(own, "branch", "--show-current"), `claudy/${session}`);
    assert.is(git(own, "rev-parse", "HEAD"), id);
    assert.is(git(own, "status", "--porcelain"), "?? draft.txt");
    assert.is(readFileSync(join(own, "draft.txt"), "utf8"), "later\n");
    const again = await open(context, { name: session, copy: undefined });
    assert.equal(again?.command.slice(1, 4), [
      "--resume",
      "11-22",
      "--fork-session",
    ]);
    const file = join(
      instance.home.claude,
      session,
      "projects/-workspace/11-22.jsonl",
    );
    assert.is(readFileSync(file, "utf8"), '{"a":1}\n{"b":2}\n');
    assert.is(readScope(instance, { session }).preset, "closed");
    assert.ok(
      readBudgets(instance.home).some((one) =>
        one.session === session && one.limit === 9
      ),
    );
    assert.is(
      await unfetchedIn(instance, readSession(instance, session) ?? record, log)
        .then(({ commits }) => commits),
      1,
    );
  }
  assert.ok(existsSync(join(tree, ".git/index.lock")));
  // Then it has a conversation of its own.
  converse(context, "first-f1", "33", "{}\n");
  const later = new Date(Date.now() + 5000);
  utimesSync(
    join(instance.home.claude, "first-f1/projects/-workspace/33.jsonl"),
    later,
    later,
  );
  await stopSession(instance, "first-f1", log);
  const own = await open(context, { name: "first-f1", copy: undefined });
  assert.is(own?.command[1], "--continue");
  const third = await forkSession(instance, record, {
    count: 1,
    inherit: undefined,
  }, log);
  assert.equal(third.sessions, ["first-f3"]);
});

test("forks a session that works in the project itself into a copy", async (context) => {
  const { instance, engine, app, log } = context;
  writeFileSync(join(app, "draft.txt"), "draft\n");
  const ready = await open(context, { copy: undefined, name: "plain" });
  const record = readSession(instance, ready?.session ?? "");
  if (!record) throw new Error("no session");
  let id = "";
  engine.reply = (line, container, { tell, nextLine }) =>
    runWorkspace(line, container, {
      tell: (message) => {
        if (message.includes("freeze")) {
          writeFileSync(join(app, "a.txt"), "two\n");
          id = commit(app, "late.txt", "late\n");
          git(app, "branch", "side");
          writeFileSync(join(app, "draft.txt"), "later\n");
        }
        tell(message);
      },
      nextLine,
    });
  const { sessions } = await forkSession(instance, record, {
    count: 1,
    inherit: undefined,
  }, log);
  const tree = instance.home.workspaceTree(sessions[0] ?? "");
  assert.is(git(tree, "rev-parse", "HEAD"), id);
  assert.is(git(tree, "rev-parse", "host/side"), id);
  assert.is(git(tree, "status", "--porcelain"), "M draft.txt");
  assert.is(readFileSync(join(tree, "draft.txt"), "utf8"), "later\n");
  git(tree, "fsck", "--strict");
  assert.is(engine.find(ready?.id ?? "")?.state, "running");
  assert.is(readSession(instance, "plain-f1")?.copy, true);
  assert.is(readSession(instance, "plain-f1")?.forkOf, undefined);
});

test("a worker goes on if its fork fails, or the command that froze it was killed", async (context) => {
  const { instance, engine, log } = context;
  const { ready, record } = await opened(context, { name: "first" });
  engine.reply = () => Promise.resolve("broken");
  await failureOf(
    forkSession(instance, record, { count: 1, inherit: undefined }, log),
  );
  const worker = engine.find(ready.id);
  assert.is(worker?.state, "running");
  // Also if it fails while it is paused, or cannot be paused.
  engine.reply = async (_, __, { tell, nextLine }) => {
    tell('{"freeze":true}');
    await nextLine();
    assert.is(worker?.state, "paused");
    return "broken";
  };
  await failureOf(
    forkSession(instance, record, { count: 1, inherit: undefined }, log),
  );
  assert.is(worker?.state, "running");
  engine.refuses.set(`pause ${worker?.name}`, 500);
  engine.reply = runWorkspace;
  const failure = await failureOf(
    forkSession(instance, record, { count: 1, inherit: undefined }, log),
  );
  assert.match(failure.message, "refused");
  engine.refuses.clear();
  assert.equal(readdirSync(instance.home.kept), ["first.json"]);
  assert.not(existsSync(instance.home.workspaceTree("first-f1")));
  await failureOf(whileFrozen(instance, ready.id, () => {
    throw new Error("cannot read the conversation");
  }));
  assert.is(worker?.state, "running");
  await docker(context, ready.id).pause();
  const mark = join(instance.home.workspaces, `.frozen-${ready.id}`);
  writeFileSync(mark, "");
  await thawAbandoned(instance);
  assert.is(worker?.state, "paused");
  utimesSync(mark, 1, 1);
  await thawAbandoned(instance);
  assert.is(worker?.state, "running");
  assert.not(existsSync(mark));
  // Another fork waits until then, and pauses the worker itself.
  await docker(context, ready.id).pause();
  writeFileSync(mark, "");
  utimesSync(mark, 1, 1);
  const { frozenMs } = await forkSession(instance, record, {
    count: 1,
    inherit: undefined,
  }, log);
  assert.ok(frozenMs > 0);
  assert.is(worker?.state, "running");
});

const docker = ({ instance }: Context, id: string) =>
  instance.docker.getContainer(id);

const one = { count: 1, inherit: undefined };

/** Calls `frozen` when a fork may read what does not change any more. */
function replyFrozen(
  { engine }: Context,
  frozen: () => Promise<void> | void,
): void {
  engine.reply = (line, container, { tell, nextLine }) =>
    runWorkspace(line, container, {
      tell,
      nextLine: async () => {
        const answer = await nextLine();
        await frozen();
        return answer;
      },
    });
}

/** Of the container: what was asked of the engine in turn. */
const pauses = ({ engine }: Context, name: string) =>
  engine.asked.filter((request) => request.endsWith(`pause ${name}`));

test("forks of a session at the same time pause its worker in turn", async (context) => {
  const { instance, engine, log } = context;
  const { ready, record, tree } = await opened(context, { name: "first" });
  const worker = engine.find(ready.id);
  let asking = 0;
  const states: (string | undefined)[] = [];
  replyFrozen(context, async () => {
    const text = `${++asking}\n`;
    writeFileSync(join(tree, "draft.txt"), text);
    // Time for the others.
    await new Promise((resolve) => setTimeout(resolve, 300));
    states.push(worker?.state);
    assert.is(readFileSync(join(tree, "draft.txt"), "utf8"), text);
  });
  const forked = await Promise.all(
    [1, 2, 3].map(() => forkSession(instance, record, one, log)),
  );
  assert.equal(states, ["paused", "paused", "paused"]);
  assert.equal(
    forked.map(({ sessions: [name = ""] }) =>
      readFileSync(join(instance.home.workspaceTree(name), "draft.txt"), "utf8")
    ).sort(),
    ["1\n", "2\n", "3\n"],
  );
  const name = worker?.name ?? "";
  assert.equal(
    pauses(context, name),
    [1, 2, 3].flatMap(() => [`pause ${name}`, `unpause ${name}`]),
  );
  assert.is(worker?.state, "running");
  assert.equal(
    readdirSync(instance.home.workspaces).sort(),
    ["first", "first-f1", "first-f2", "first-f3"],
  );
});

test("another command lets a worker go on that could not be unpaused", async (context) => {
  const { instance, engine, log } = context;
  const { ready, record } = await opened(context, { name: "first" });
  const worker = engine.find(ready.id);
  engine.refuses.set(`unpause ${worker?.name}`, 500);
  const failure = await failureOf(forkSession(instance, record, one, log));
  assert.match(failure.message, "refused");
  assert.is(worker?.state, "paused");
  const mark = join(instance.home.workspaces, `.frozen-${ready.id}`);
  utimesSync(mark, 1, 1);
  // As long as that fails, it is tried again, and nothing else fails.
  await thawAbandoned(instance);
  assert.ok(existsSync(mark));
  engine.refuses.clear();
  await thawAbandoned(instance);
  assert.is(worker?.state, "running");
  assert.not(existsSync(mark));
});

test("a fork fails if its worker went on, also after its files were copied", async (context) => {
  const { instance, log } = context;
  await opened(context, { name: "first" });
  const scratch = reserve(instance, "first-f1");
  if (!scratch) throw new Error("there is a copy");
  const frozen = async (act: () => Promise<void>) => {
    await act();
    // The program in the container ends in the meantime.
    await new Promise((resolve) => setTimeout(resolve, 500));
    throw new Error("it went on");
  };
  const request = { from: "first", session: "first-f1", frozen };
  const failure = await failureOf(forkCopy(instance, request, scratch, log));
  assert.is(failure.message, 'Cannot fork session "first": it went on');
  await scratch.remove();
});

test("a fork fails whose command stood still until another one let the worker go on", async (context) => {
  const { instance, engine, log } = context;
  const { ready, record } = await opened(context, { name: "first" });
  const worker = engine.find(ready.id);
  const mark = join(instance.home.workspaces, `.frozen-${ready.id}`);
  replyFrozen(context, async () => {
    utimesSync(mark, 1, 1);
    await thawAbandoned(instance);
    assert.is(worker?.state, "running");
    // Longer than until the next sign of life.
    await new Promise((resolve) => setTimeout(resolve, 1200));
    await docker(context, ready.id).pause();
    writeFileSync(mark, "of another one");
  });
  const failure = await failureOf(forkSession(instance, record, one, log));
  assert.match(failure.message, "went on before it was copied");
  assert.is(readSession(instance, "first-f1"), undefined);
  // The other one's.
  assert.is(worker?.state, "paused");
  assert.is(readFileSync(mark, "utf8"), "of another one");
});

test("a signal ends a fork at once, and lets the worker go on before", async (context) => {
  const { instance, engine, log } = context;
  const { ready, record } = await opened(context, { name: "first" });
  const worker = engine.find(ready.id);
  const states: (string | undefined)[] = [];
  const atSignal = () => void states.push(worker?.state);
  process.on("SIGHUP", atSignal);
  try {
    replyFrozen(context, () => {
      process.kill(process.pid, "SIGHUP");
      return new Promise(() => {}); // a large file
    });
    const failure = await failureOf(forkSession(instance, record, one, log));
    assert.match(failure.message, "Interrupted by SIGHUP");
    const told = () => states.length > 0;
    await waitFor(told, { for: "the signal", timeoutMs: 2000 });
  } finally {
    process.off("SIGHUP", atSignal);
  }
  assert.equal(states, ["running"]);
  assert.equal(readdirSync(instance.home.workspaces).sort(), ["first"]);
});

test("forks get the rules and budgets of their session, or are not made", async (context) => {
  const { instance, told, log } = context;
  const { home } = instance;
  const { record } = await opened(context, { name: "first" });
  converse(context, "first", "11-22", "{}\n");
  const budget = { session: "first", project: null, limit: 9 };
  setBudget(instance, { ...budget, measure: "tokens", per: "day" });
  writeScope(instance, { session: "first" }, { preset: "closed", rules: [] });
  const rules = join(home.egress, "sessions");
  const left = () =>
    [home.workspaces, home.kept, home.claude, rules].map((directory) =>
      readdirSync(directory).sort()
    );
  const before = left();
  const two = { count: 2, inherit: undefined };
  // The first one is complete already, and is removed with the other.
  replyFrozen(context, () => {
    mkdirSync(join(home.claude, "first-f2"));
    writeFileSync(join(home.claude, "first-f2/projects"), "not a directory");
  });
  await failureOf(forkSession(instance, record, two, log));
  assert.equal(left(), before);
  assert.is(readBudgets(home).length, 1);
  const budgets = readFileSync(home.budgets);
  replyFrozen(context, () => writeFileSync(home.budgets, "damaged"));
  const late = await failureOf(forkSession(instance, record, two, log));
  assert.match(late.message, "Cannot read the budgets");
  assert.match(told.at(-1) ?? "", "Cannot remove what was forked");
  assert.equal(left(), before);
  writeFileSync(home.budgets, budgets);
  // Nothing is copied then.
  replyFrozen(context, () => assert.unreachable());
  writeFileSync(join(rules, before[3]?.[0] ?? ""), "damaged");
  await failureOf(forkSession(instance, record, two, log));
  assert.equal(left(), before);
});

test("reserves the names of all forks at once, and sweeps what killed ones have left", async (context) => {
  const { instance, log } = context;
  const { home } = instance;
  const { record } = await opened(context, { name: "first" });
  const killed = join(home.workspace("first-f1"), ".making-000000000001");
  mkdirSync(killed, { recursive: true });
  for (const path of [killed, home.workspace("first-f1")]) {
    utimesSync(path, 1, 1);
  }
  const forked = await Promise.all(
    [2, 1].map((count) =>
      forkSession(instance, record, { count, inherit: undefined }, log)
    ),
  );
  assert.equal(forked.flatMap(({ sessions }) => sessions).sort(), [
    "first-f1",
    "first-f2",
    "first-f3",
  ]);
});

test("refuses at once to fork a running session on an engine that cannot pause it", async (context) => {
  const { instance, engine, log } = context;
  const { record } = await opened(context, { name: "first" });
  engine.about.SecurityOptions.push("name=rootless"); // and cgroups of version 1
  const rootless = { ...instance, docker: engine.docker };
  const asked = engine.asked.length;
  const failure = await failureOf(forkSession(rootless, record, one, log));
  assert.match(failure.message, "this engine cannot pause its worker");
  assert.is(engine.asked.length, asked);
});

test("names the forks that are made, but could not be started", async (context) => {
  const { told } = context;
  const open = (name: string, at: number) =>
    name === "b" && at === 1 ? Promise.reject(Error("no")) : Promise.resolve();
  const failure = await failureOf(inTurn(context, ["a", "b", "c"], open));
  assert.is(failure.message, "no");
  assert.equal(told, [
    "Made, but not started: b, c. To open it: claudy attach b",
  ]);
});

test.run();
