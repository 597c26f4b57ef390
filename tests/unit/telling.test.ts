// What sessions tell: their conversation, how Claude ended, and what has become of their
// project.

import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { examineProjects } from "../../lib/doctor/kept.ts";
import { label } from "../../lib/instance/labels.ts";
import { reservePorts } from "../../lib/instance/port-range.ts";
import { closeRecord, writeRecord } from "../../lib/instance/record.ts";
import {
  readSession,
  type SessionRecord,
  writeSession,
} from "../../lib/instance/session-record.ts";
import { sessionName } from "../../lib/project/project.ts";
import { readEnding } from "../../lib/session/activity.ts";
import { renameSession } from "../../lib/session/move.ts";
import { readMessages } from "../../lib/session/transcript.ts";
import { inodeOf } from "../../lib/std/hostpath.ts";
import { main as claudy } from "../../scripts/claudy.ts";
import type { FakeContainer } from "../helper/fake-engine.ts";
import { type Served, serveEngine } from "../helper/served-engine.ts";

const test = suite<Served>("telling");

test.before.each(async (context) => {
  Object.assign(context, await serveEngine());
  // Claude shows its prompt at once.
  context.engine.run = (command, { spec }) => {
    if (command.includes("new-session")) {
      const states = join(homeOf(context, claudeHomeIn(spec)), "sessions");
      mkdirSync(states, { recursive: true });
      writeFileSync(join(states, "1.json"), '{"status":"idle"}');
    }
    return { exitCode: 0 };
  };
});
test.after.each(({ close }) => close());

const at = "2026-01-01T00:00:00.000Z";

function keep(
  { instance, project }: Served,
  name: string,
  change: Partial<SessionRecord> = {},
): SessionRecord {
  const record: SessionRecord = {
    version: 1,
    name,
    project: project("app"),
    createdAt: at,
    usedAt: at,
    ...change,
  };
  writeSession(instance, record);
  return record;
}

/** Adds a running worker of a session, with its record. */
function addWorker(
  { engine, instance, labels, project }: Served,
  session: string,
  inode = inodeOf(project("app")),
) {
  const path = project("app");
  const worker = engine.add(`${session}-worker`, {
    spec: {
      Labels: labels({ [label.session]: session, [label.project]: path }),
    },
  });
  const record = {
    version: 1 as const,
    worker: worker.name,
    container: worker.id,
    session,
    project: { path, uid: 1, gid: 1, inode },
    image: "repo:worker",
    born: "cold" as const,
    home: `claude/${session}`,
    ephemeral: false,
    secrets: null,
    memoryBytes: null,
    oomKilledAt: null,
    createdAt: at,
  };
  writeRecord(instance, record);
  return { worker, record };
}

function homeOf({ instance }: Served, session: string): string {
  const home = join(instance.home.claude, session);
  mkdirSync(home, { recursive: true });
  return home;
}

/** The session whose home is mounted. */
function claudeHomeIn(spec: FakeContainer["spec"]): string {
  return String(spec.Labels?.[label.session]);
}

function converse(served: Served, session: string, lines: unknown[]): string {
  const directory = join(homeOf(served, session), "projects", "-workspace");
  mkdirSync(directory, { recursive: true });
  const file = join(directory, "one.jsonl");
  const text = lines.map((line) =>
    typeof line === "string" ? line : JSON.stringify(line)
  );
  writeFileSync(file, `${text.join("\n")}\n`);
  return file;
}

const said = (type: string, content: unknown) => ({
  type,
  timestamp: at,
  message: { role: type, content },
});

const talk = [
  { type: "summary", summary: "a talk" },
  said("user", "Fix it\nsoon"),
  said("assistant", [
    { type: "thinking", thinking: "hm" },
    { type: "text", text: "I look." },
    { type: "tool_use", name: "Bash", input: { command: "make\ntest" } },
  ]),
  said("user", [{ type: "tool_result", content: "ok" }]),
  { ...said("user", "added by the CLI"), isMeta: true },
  { ...said("assistant", "of a subagent"), isSidechain: true },
  "no JSON",
  "[".repeat(300_000),
  said("assistant", "Done.\x1b[2J"),
];

test("logs prints the conversation of a session, running or not", async (served) => {
  const { run } = served;
  keep(served, "one");
  const none = await run(claudy, ["logs", "one"]);
  assert.is(none.code, 4);
  assert.match(none.stderr, '"one" has no conversation yet');
  assert.match(none.stderr, "claudy logs --worker one");
  converse(served, "one", talk);
  const logs = async (...words: string[]) =>
    (await run(claudy, ["logs", "one", ...words])).stdout;
  assert.is(
    await logs(),
    "> Fix it\n> soon\n\nI look.\n[Bash] make\n\nDone.\x1b[2J\n",
  );
  assert.is(await logs("--tail", "1"), "Done.\x1b[2J\n");
  const json = (await logs("--json", "--tail", "2")).trimEnd().split("\n");
  assert.equal(json.map((line) => JSON.parse(line)), [
    { at, role: "assistant", text: "I look.\n[Bash] make" },
    { at, role: "assistant", text: "Done.\x1b[2J" },
  ]);
});

test("a conversation is read further where it was left, and from no other file", (served) => {
  const { instance, root } = served;
  const file = converse(served, "one", [said("user", "first")]);
  const texts = (read: ReturnType<typeof readMessages>) =>
    read?.messages.map(({ text }) => text);
  const first = readMessages(instance, "one");
  assert.equal(texts(first), ["first"]);
  const line = JSON.stringify(said("user", "second"));
  const former = readFileSync(file, "utf8");
  // A line that is still being written is left for the next call.
  writeFileSync(file, former + line.slice(0, 20));
  const second = readMessages(instance, "one", first?.position);
  assert.equal(texts(second), []);
  writeFileSync(file, `${former}${line}\n`);
  assert.equal(
    texts(readMessages(instance, "one", second?.position)),
    ["second"],
  );
  // Another conversation in between.
  const third = readMessages(instance, "one", second?.position);
  const other = join(dirname(file), "two.jsonl");
  writeFileSync(other, `${line}\n`);
  utimesSync(file, 1, 1);
  const fourth = readMessages(instance, "one", third?.position);
  assert.equal(texts(fourth), ["second"]);
  rmSync(other);
  assert.equal(texts(readMessages(instance, "one", fourth?.position)), []);
  // Longer than what is read at once: the beginning is left out.
  writeFileSync(file, `${"x".repeat(9_000_000)}\n${line}\n`);
  assert.equal(texts(readMessages(instance, "one")), ["second"]);
  rmSync(file);
  const secret = join(root, "secret.jsonl");
  writeFileSync(secret, former);
  symlinkSync(secret, file);
  assert.is(readMessages(instance, "one"), undefined);
});

test("a conversation among too many files is not read, and the hint tells where", async (served) => {
  keep(served, "one");
  const file = converse(served, "one", talk);
  for (let count = 0; count < 5000; count++) {
    writeFileSync(join(dirname(file), `${count}.jsonl`), "");
  }
  const { code, stderr } = await served.run(claudy, ["logs", "one"]);
  assert.is(code, 1);
  assert.match(stderr, "from claude/one/projects/-workspace");
});

test("a Claude that refuses its arguments fails the command, with its last words", async (served) => {
  const { run, engine, project } = served;
  const path = project("app");
  const name = sessionName(path);
  let ending = "";
  engine.run = (command) => {
    if (command.includes("has-session")) return { exitCode: 1 };
    if (command.includes("new-session") && ending !== "") {
      writeFileSync(join(homeOf(served, name), "hal9000-ended"), ending);
    }
    return { exitCode: 0 };
  };
  ending = "1\nerror: unknown option --bogus\n\x1b[31mUsage\n";
  const ran = await run(claudy, ["-d", path, "--", "--bogus"]);
  assert.is(ran.code, 1);
  assert.match(ran.stderr, "error: unknown option --bogus\n [31mUsage\n");
  assert.match(ran.stderr, "error: Claude ended with exit code 1\n");
  assert.match(ran.stderr, `claudy attach ${name}`);
  assert.is(ran.stdout, "");
  // It has done its work.
  ending = "0\n\n";
  const done = await run(claudy, ["-d", path, "--", "--bogus"]);
  assert.is(done.code, 0, done.stderr);
  // Without arguments too, and also if it was killed.
  ending = "137\nKilled\n";
  const killed = await run(claudy, ["-d", path]);
  assert.is(killed.code, 1);
  assert.is(
    killed.stderr.split("\n").slice(-4).join("\n"),
    "Killed\nerror: Claude ended with exit code 137\n" +
      `Start it again with: claudy attach ${name}\n`,
  );
  assert.is(killed.stdout, "");
  // It neither shows its prompt nor ends.
  ending = "";
  rmSync(join(homeOf(served, name), "hal9000-ended"));
  const env = { ANTHROPIC_API_KEY: "sk-ant-api-12345678" };
  const waits = await run(claudy, ["-d", path], { env });
  assert.equal([waits.code, waits.stdout], [0, `${name}\n`]);
  assert.match(
    waits.stderr,
    `Claude is not ready yet. To see what it shows: claudy attach ${name}\n`,
  );
  // It runs; only a former one has failed.
  const states = join(homeOf(served, name), "sessions");
  const ended = join(homeOf(served, name), "hal9000-ended");
  ending = "";
  mkdirSync(states, { recursive: true });
  writeFileSync(join(states, "1.json"), '{"status":"idle"}');
  writeFileSync(ended, "1\n");
  utimesSync(ended, 1, 1);
  const runs = await run(claudy, ["-d", path, "--", "--model", "opus"]);
  assert.is(runs.code, 0, runs.stderr);
});

test("how Claude ended is read from a plain file only, and a new worker forgets it", async (served) => {
  const { run, root, project } = served;
  const name = sessionName(project("app"));
  const home = homeOf(served, name);
  const file = join(home, "hal9000-ended");
  for (const text of ["", "x\n", "1234\n", "-1\n"]) {
    writeFileSync(file, text);
    assert.is(readEnding(home), undefined, text);
  }
  writeFileSync(file, `7\n${"line\n".repeat(50)}`);
  assert.is(readEnding(home)?.exitCode, 7);
  assert.is(readEnding(home)?.lines.length, 20);
  mkdirSync(join(home, "sessions"));
  writeFileSync(join(home, "sessions/9.json"), '{"status":"idle"}');
  await run(claudy, ["-d", project("app")]);
  assert.is(readEnding(home), undefined);
  assert.equal(readdirSync(join(home, "sessions")), ["1.json"]);
  rmSync(file, { force: true });
  writeFileSync(join(root, "other"), "3\n");
  symlinkSync(join(root, "other"), file);
  assert.is(readEnding(home), undefined);
});

test("what would take effect only at a start is refused while Claude runs", async (served) => {
  const { run, engine, project } = served;
  const path = project("app");
  engine.run = () => ({ exitCode: 0 });
  const opened = await run(claudy, ["-d", path]);
  assert.is(opened.code, 0, opened.stderr);
  for (
    const [words, what] of [
      [["--new", path], "--new has"],
      [[path, "--", "--model", "opus"], "arguments of Claude have"],
    ] as [string[], string][]
  ) {
    const ran = await run(claudy, ["-d", ...words]);
    assert.is(ran.code, 5);
    assert.match(ran.stderr, `is running: ${what} no effect`);
    assert.match(ran.stderr, `claudy stop ${sessionName(path)}`);
  }
});

test("the list distinguishes sessions that were stopped, lost, left or not logged in", async (served) => {
  const { run, engine, instance } = served;
  keep(served, "a-stopped", { usedAt: at });
  const stopped = addWorker(served, "a-stopped");
  closeRecord(instance, stopped.record, { at, exitCode: 143 });
  keep(served, "a-killed");
  const killed = addWorker(served, "a-killed");
  closeRecord(instance, killed.record, { at, exitCode: 137 });
  keep(served, "b-lost");
  const lost = addWorker(served, "b-lost");
  closeRecord(instance, lost.record, { at, exitCode: null });
  keep(served, "c-lost");
  addWorker(served, "c-lost");
  engine.containers.splice(-4);
  keep(served, "d-exited");
  addWorker(served, "d-exited");
  writeFileSync(join(homeOf(served, "d-exited"), "hal9000-ended"), "3\n");
  keep(served, "e-never");
  addWorker(served, "e-never");
  engine.run = () => ({ exitCode: 1 });
  keep(served, "f-out");
  addWorker(served, "f-out");
  const states = join(homeOf(served, "f-out"), "sessions");
  mkdirSync(states);
  writeFileSync(join(states, "1.json"), '{"status":"idle"}');
  const shown = async (env = {}) => {
    const { stdout } = await run(claudy, ["sessions"], { env });
    return Object.fromEntries(
      stdout.split("\n").slice(1, -1).map((line) => line.split(/ {2,}/)),
    );
  };
  assert.equal(await shown(), {
    "a-stopped": "stopped",
    "a-killed": "stopped: exit code 137",
    "b-lost": "lost",
    "c-lost": "lost",
    "d-exited": "exited: exit code 3",
    "e-never": "exited: not logged in",
    "f-out": "idle: not logged in",
  });
  const env = { ANTHROPIC_API_KEY: "sk-ant-api-12345678" };
  assert.is((await shown(env))["f-out"], "idle");
  writeFileSync(join(homeOf(served, "f-out"), ".credentials.json"), "{}");
  assert.is((await shown())["f-out"], "idle");
});

test("opening a session without credentials warns", async ({ run, project }) => {
  const opened = await run(claudy, ["-d", project("app")]);
  assert.match(opened.stderr, "warning: not logged in");
  const env = { ANTHROPIC_API_KEY: "sk-ant-api-12345678" };
  const other = await run(claudy, ["-d", project("other")], { env });
  assert.not.match(other.stderr, "not logged in");
});

test("a session whose project was replaced or removed says what to do", async (served) => {
  const { run, instance, root, project } = served;
  const path = project("app");
  keep(served, sessionName(path));
  addWorker(served, sessionName(path), "1:2");
  for (const words of [["-d", path], ["attach", path]]) {
    const ran = await run(claudy, words);
    assert.is(ran.code, 5, words[0]);
    assert.match(ran.stderr, "which was replaced, moved or mounted");
    assert.match(ran.stderr, `claudy stop ${sessionName(path)}`);
  }
  assert.is(examineProjects(instance).state, "ok");
  const gone = join(root, "gone");
  keep(served, "gone", { project: gone });
  const finding = examineProjects(instance);
  assert.is(finding.state, "warn");
  assert.match(finding.says, `${gone} (gone)`);
  assert.match(finding.mend ?? "", "claudy move gone DIRECTORY");
  const ran = await run(claudy, ["-d", gone]);
  assert.is(ran.code, 4);
  assert.match(ran.stderr, `The project of session "gone" is missing: ${gone}`);
  assert.match(ran.stderr, "claudy move gone DIRECTORY");
});

test("a moved project keeps its session, under the name of its new path", async (served) => {
  const { run, instance, root, project } = served;
  const former = join(root, "former");
  const portBase = reservePorts(instance, sessionName(former));
  const name = sessionName(former);
  keep(served, name, { project: former, portBase, repository: "/r" });
  converse(served, name, talk);
  const path = project("app");
  const ran = await run(claudy, ["move", name, path, "--json"]);
  assert.equal(JSON.parse(ran.stdout), {
    session: sessionName(path),
    project: path,
  });
  assert.is(readSession(instance, name), undefined);
  const moved = readSession(instance, sessionName(path));
  assert.is(moved?.project, path);
  assert.is(moved?.createdAt, at);
  assert.is(moved?.repository, undefined);
  assert.equal(readdirSync(instance.home.ports), [`${moved?.portBase}`]);
  const logs = await run(claudy, ["logs", path]);
  assert.match(logs.stdout, "Done.");
  // A name that was chosen stays.
  keep(served, "chosen", { project: former });
  await run(claudy, ["move", "chosen", path]);
  assert.is(readSession(instance, "chosen")?.project, path);
});

test("a session is renamed only if it has no worker and the name is free", async (served) => {
  const { run, instance, engine } = served;
  keep(served, "one");
  keep(served, "two", { createdAt: "2026-01-02T00:00:00.000Z" });
  converse(served, "one", talk);
  const refusal = async (...words: string[]) => {
    const { code, stderr } = await run(claudy, ["rename", ...words]);
    return `${code} ${stderr}`;
  };
  assert.match(
    await refusal("one", "two"),
    '5 error: There is already a session "two"',
  );
  assert.match(await refusal("one", "../x"), "2 error: Invalid name");
  assert.match(await refusal("one", "fake-parent"), "2 error:");
  addWorker(served, "one");
  assert.match(await refusal("one", "three"), 'Session "one" is running');
  engine.containers.pop();
  // Data without a record is not overwritten either.
  mkdirSync(join(instance.home.claude, "four"));
  assert.match(await refusal("one", "four"), 'already a session "four"');
  mkdirSync(dirname(instance.home.inherited("one")), { recursive: true });
  writeFileSync(instance.home.inherited("one"), "{}");
  assert.match(await refusal("one", "three"), "0 ");
  assert.ok(existsSync(instance.home.inherited("three")));
  assert.ok(existsSync(join(instance.home.claude, "three", "projects")));
  assert.is(readSession(instance, "one"), undefined);
});

test("an interrupted rename is completed by running it again", async (served) => {
  const { instance } = served;
  const one = keep(served, "one", {
    portBase: reservePorts(served.instance, "one"),
  });
  converse(served, "one", talk);
  // The new record was written; then the command was killed.
  writeSession(instance, { ...one, name: "three", portBase: undefined });
  const renamed = await renameSession(instance, one, "three", () => {});
  assert.is(renamed.name, "three");
  assert.ok(existsSync(join(instance.home.claude, "three", "projects")));
  assert.is(readSession(instance, "one"), undefined);
  // Or also its files were moved.
  const two = keep(served, "two");
  converse(served, "four", talk);
  writeSession(instance, { ...two, name: "four" });
  assert.is(
    (await renameSession(instance, two, "four", () => {})).name,
    "four",
  );
  assert.is(readSession(instance, "two"), undefined);
});

test("a rename stops the worker that was started for the former name meanwhile", async (served) => {
  const { instance, engine } = served;
  const one = keep(served, "one");
  converse(served, "one", talk);
  const { listContainers } = instance.docker;
  let isAdded = false;
  const docker = {
    ...instance.docker,
    listContainers: async (options: object) => {
      const found = await listContainers(options);
      if (!isAdded) addWorker(served, "one");
      isAdded = true;
      return found;
    },
  } as typeof instance.docker;
  await renameSession({ ...instance, docker }, one, "two", () => {});
  assert.is(readSession(instance, "one"), undefined);
  assert.equal(engine.asked, ["stop one-worker", "remove one-worker"]);
});

test("exec needs a command and a running session", async (served) => {
  const { run } = served;
  keep(served, "one");
  const none = await run(claudy, ["exec", "one"]);
  assert.match(none.stderr, "claudy exec shop -- npm test");
  const stopped = await run(claudy, ["exec", "one", "--", "true"]);
  assert.is(stopped.code, 4);
  addWorker(served, "one", "1:2");
  assert.is((await run(claudy, ["exec", "one", "--", "true"])).code, 5);
});

test("a prompt is sent only to a Claude that does not wait for an answer", async (served) => {
  const { run, engine } = served;
  keep(served, "one");
  const sent: string[][] = [];
  engine.run = (command) => {
    sent.push(command);
    return { exitCode: 0 };
  };
  const send = async (words: string[], stdin = "") => {
    const { code, stderr } = await run(claudy, ["send", "one", ...words], {
      stdin,
    });
    return `${code} ${stderr}`;
  };
  assert.match(await send(["hello"]), '4 error: Session "one" is not running');
  addWorker(served, "one");
  assert.match(await send(["hello"]), "claudy attach one");
  const states = join(homeOf(served, "one"), "sessions");
  mkdirSync(states);
  const says = (state: object) =>
    writeFileSync(join(states, "1.json"), JSON.stringify(state));
  says({ status: "waiting", waitingFor: "permission" });
  assert.match(
    await send(["yes"]),
    '5 error: Session "one" waits for you: permission',
  );
  says({ status: "idle" });
  assert.match(await send([]), "2 error: There is no text to send");
  assert.match(
    await send(["x".repeat(110_000)]),
    "The prompt is longer than 100 KiB",
  );
  assert.equal(sent, []);
  assert.is(await send(["- run", "the tests;"]), "0 Sent to one\n");
  assert.is(await send([], "two\nlines\n"), "0 Sent to one\n");
  // The end of a paste, and keys.
  await send([], "a\tlog\x1b[201~\r\n\x1b[Z!touch x\r\x9b1A\0");
  assert.equal(sent.map((command) => command.at(-1)), [
    "- run the tests;",
    "two\nlines",
    "a\tlog[201~\n[Z!touch x1A",
  ]);
});

test.run();
