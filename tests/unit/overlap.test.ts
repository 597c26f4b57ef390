// Files that two sessions of a project have both changed, on a fake engine whose helper
// containers run the real program.

import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  readSessions,
  removeSessionRecord,
  writeSession,
} from "../../lib/instance/session-record.ts";
import { ensureCopy } from "../../lib/session/copy.ts";
import { checkOpening } from "../../lib/session/opening.ts";
import { followOverlaps } from "../../lib/session/overlap-watch.ts";
import { waitFor } from "../../lib/std/wait.ts";
import { fetchCopy } from "../../lib/workspace/fetch.ts";
import {
  type Changed,
  findOverlaps,
  type Overlap,
  overlapsOf,
  overlapText,
} from "../../lib/workspace/overlap.ts";
import { type FakeInstance, fakeInstance } from "../helper/fake-engine.ts";
import { runWorkspace } from "../helper/workspace-program.ts";

interface Context extends FakeInstance {
  app: string;
}

const test = suite<Context>("overlap");

test.before.each((context) => {
  Object.assign(context, fakeInstance());
  context.engine.reply = runWorkspace;
  Object.assign(context.instance.settings, {
    HAL9000_PROJECT_ROOTS: [context.root],
  });
  context.app = context.project("app");
  git(context.app, "init", "--quiet", "--initial-branch=main");
  change(context.app, "a.txt", "b.txt");
  commit(context.app);
});
test.after.each(({ end }) => end());

function git(directory: string, ...args: string[]): string {
  const who = ["-c", "user.name=a", "-c", "user.email=a@b"];
  return execFileSync("git", [...who, ...args], {
    cwd: directory,
    env: { PATH: process.env["PATH"], HOME: "/nonexistent" },
    encoding: "utf8",
  }).trim();
}

function commit(directory: string): void {
  git(directory, "add", "--all");
  git(directory, "commit", "--quiet", "--message", "some");
}

let count = 0;

function change(directory: string, ...names: string[]): void {
  for (const name of names) {
    const path = join(directory, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, `${++count}\n`);
  }
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

/** A session that works in the project itself. */
function direct({ instance }: Context, name: string, project: string): void {
  const now = new Date().toISOString();
  const times = { createdAt: now, usedAt: now };
  writeSession(instance, { version: 1, name, project, ...times });
}

const shown = (overlaps: Overlap[]) =>
  overlaps.map(({ sessions, sameDirectory, files }) =>
    `${sessions.join(" ")}: ${sameDirectory ? "same" : files.join(" ")}`
  );

test("finds what sessions have both changed, committed or not", async (context) => {
  const { instance, app, log } = context;
  const find = async () =>
    shown(await findOverlaps(instance, readSessions(instance), log));
  const one = await copied(context, "one");
  const two = await copied(context, "two");
  assert.equal(await find(), []);
  change(one, "a.txt", "one.txt");
  git(one, "mv", "b.txt", "c.txt");
  commit(one);
  change(one, "new/d.txt");
  change(two, "b.txt", "new/d.txt");
  commit(two);
  change(two, "a.txt", "two.txt");
  assert.equal(await find(), ["one two: a.txt b.txt new/d.txt"]);
  // Sessions in the project itself, and one of another project.
  direct(context, "here", app);
  direct(context, "here-too", app);
  direct(context, "elsewhere", context.project("other"));
  change(app, "one.txt");
  commit(app);
  change(app, "two.txt");
  assert.equal(await find(), [
    "here here-too: same",
    "here one: one.txt",
    "here two: two.txt",
    "here-too one: one.txt",
    "here-too two: two.txt",
    "one two: a.txt b.txt new/d.txt",
  ]);
  // What is merged is not changed any more.
  for (const name of ["here", "here-too"]) removeSessionRecord(instance, name);
  git(app, "reset", "--hard", "--quiet", "HEAD~1");
  const record = readSessions(instance).find(({ name }) => name === "one");
  if (record) await fetchCopy(instance, record, { changes: false }, log);
  git(app, "merge", "--quiet", "refs/remotes/claudy/one/claudy/one");
  assert.equal(await find(), ["one two: new/d.txt"]);
});

test("names of files arrive as names, and a copy that cannot be read is left out", async (context) => {
  const { instance } = context;
  const name = "line\nbreak \x1b[31m.txt";
  for (const session of ["one", "two", "three"]) {
    change(await copied(context, session), name);
  }
  rmSync(join(instance.home.workspaceTree("three"), ".git"), {
    recursive: true,
  });
  const logged: string[] = [];
  const [found, ...others] = await findOverlaps(
    instance,
    readSessions(instance),
    (line) => logged.push(line),
  );
  assert.equal(others, []);
  assert.equal(found?.files, [name]);
  const text = found ? overlapText(found) : "";
  for (const control of ["\n", "\x1b"]) assert.not(text.includes(control));
  assert.match(
    logged.join("\n"),
    'warning: Cannot compare session "three": Its .git is not a directory',
  );
});

test("shows the first of many files, and their number", () => {
  const session = [...Array(150).keys()].map((at) => `f${1000 + at}`);
  const same = { project: "/app", copy: true } as const;
  const [found] = overlapsOf(
    [{ name: "b", ...same }, { name: "a", ...same }],
    new Map([
      ["a", { session, project: [] }],
      ["b", { session: session.toReversed(), project: [] }],
    ]),
  );
  assert.is(found?.count, 150);
  assert.is(found?.files.length, 100);
  assert.is(
    found && overlapText(found),
    "a and b have both changed 150 files: " +
      "f1000, f1001, f1002, f1003, f1004, 145 more",
  );
});

test("watching reads copies when their files may have changed, and tells what begins", async (context) => {
  const { instance, app } = context;
  const working = new Set<string>();
  const files: Record<string, string[]> = { one: ["x"], two: ["x"], old: [] };
  for (const name of Object.keys(files)) {
    direct(context, name, app);
    const [record] = readSessions(instance).filter((one) => one.name === name);
    if (record) writeSession(instance, { ...record, copy: true });
  }
  const reads: string[] = [];
  const told: string[] = [];
  const logged: string[] = [];
  const stop = new AbortController();
  const read = ({ record: { name } }: { record: { name: string } }) => {
    reads.push(name);
    const session = files[name];
    return session
      ? Promise.resolve<Changed>({ session, project: [] })
      : Promise.reject(new Error("no copy"));
  };
  const following = followOverlaps(
    instance,
    {
      stop: stop.signal,
      log: (line) => logged.push(line),
      works: (session) => working.has(session),
      everyMs: 5,
      read: (_, one) => read(one),
    },
    ({ sessions }, begins) =>
      told.push(`${sessions.join(" ")}${begins ? " begins" : ""}`),
  );
  const until = (holds: () => boolean) =>
    waitFor(() => Promise.resolve(holds()), { for: "it", timeoutMs: 5000 });
  await until(() => told.length === 1);
  assert.equal(told, ["one two"]);
  assert.equal(reads.sort(), ["old", "one", "two"]);
  // Read when it begins to work, and when it has ended.
  working.add("old");
  await until(() => reads.length === 4);
  files["old"] = ["x"];
  working.clear();
  await until(() => told.length === 3);
  assert.equal(told.slice(1).sort(), ["old one begins", "old two begins"]);
  assert.equal(reads.slice(3), ["old", "old"]);
  delete files["one"];
  working.add("one");
  await until(() => logged.length > 0);
  working.clear();
  await until(() => reads.length === 7);
  stop.abort();
  await following;
  assert.equal(logged, ["warning: no copy"]);
});

test.run();
