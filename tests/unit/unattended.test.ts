// Permission modes, and the answers of claudy run.

import { Buffer } from "node:buffer";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { HeldResult, whileWaiting } from "../../lib/commands/ask.ts";
import { outputFormat } from "../../lib/commands/run.ts";
import { permissionChoice } from "../../lib/commands/start-options.ts";
import { readSettings } from "../../lib/instance/config.ts";
import {
  modeArguments,
  type StartMode,
  startMode,
} from "../../lib/instance/permission-mode.ts";
import { readSession } from "../../lib/instance/session-record.ts";
import { answerLine } from "../../lib/session/answer.ts";
import { readySession } from "../../lib/session/open.ts";
import { checkOpening } from "../../lib/session/opening.ts";
import { Failure } from "../../lib/std/errors.ts";
import { linesOf } from "../../lib/std/lines.ts";
import { main as claudy } from "../../scripts/claudy.ts";
import { type FakeInstance, fakeInstance } from "../helper/fake-engine.ts";
import { runMain } from "../helper/run-main.ts";

const test = suite<FakeInstance>("unattended");

test.before.each((context) => void Object.assign(context, fakeInstance()));
test.after.each(({ end }) => end());

const modes = (text: string) => ({
  settings: readSettings({ PERMISSION_MODES: text }),
});

test("PERMISSION_MODES has a mode for each project", () => {
  const { settings } = modes("/a=b=plan:/c d=bypassPermissions:");
  assert.equal([...settings.PERMISSION_MODES], [
    ["/a=b", "plan"],
    ["/c d", "bypassPermissions"],
  ]);
  for (const text of ["plan", "a=plan", "/a=yolo", "/a"]) {
    assert.throws(
      () => modes(text),
      /PERMISSION_MODES must be PATH=MODE, .* bypassPermissions/,
    );
  }
});

test("an option decides on the mode, then that of before, then the setting", () => {
  const set = modes("/p=plan");
  const before: StartMode = {
    permissionMode: "auto",
    permissionModeFrom: "option",
  };
  const of = (
    option: Parameters<typeof startMode>[2],
    before?: StartMode,
    project = "/p",
  ) => startMode(set, project, option, before);
  assert.equal(of("manual", before), {
    permissionMode: "manual",
    permissionModeFrom: "option",
  });
  assert.equal(of(undefined, before), before);
  assert.equal(of(undefined), {
    permissionMode: "plan",
    permissionModeFrom: "setting",
  });
  // A setting that was removed has no effect any more.
  const formerSetting: StartMode = {
    permissionMode: "bypassPermissions",
    permissionModeFrom: "setting",
  };
  assert.equal(of(undefined, formerSetting, "/other"), {});
  assert.equal(modeArguments({}), []);
  assert.equal(modeArguments(before), ["--permission-mode", "auto"]);
});

test("--dangerously-skip-permissions is bypassPermissions", () => {
  assert.is(permissionChoice({}), undefined);
  assert.is(permissionChoice({ permissionMode: "plan" }), "plan");
  const skips = { dangerouslySkipPermissions: true };
  assert.is(permissionChoice(skips), "bypassPermissions");
  const both = { ...skips, permissionMode: "bypassPermissions" };
  assert.is(permissionChoice(both), "bypassPermissions");
  for (
    const twice of [
      { ...skips, permissionMode: "plan" },
      { permissionMode: "plan", "--": ["--permission-mode=auto"] },
      { permissionMode: "plan", "--": ["--dangerously-skip-permissions"] },
    ]
  ) {
    assert.throws(() => permissionChoice(twice), /mode was given twice/);
  }
  assert.throws(
    () => permissionChoice({ permissionMode: "none" }),
    /--permission-mode must be one of acceptEdits, .*, got "none"/,
  );
});

const claudeRuns = (runs: boolean) => (command: string[]) => ({
  exitCode: command.includes("has-session") && !runs ? 1 : 0,
});

async function open(
  { instance, project, log }: FakeInstance,
  permissionMode?: "plan" | "manual",
) {
  const request = {
    directory: project("app"),
    cwd: "/",
    profile: { name: undefined, build: false },
    mcp: undefined,
    claudeArguments: ["--model", "opus"],
    permissionMode,
    approveConfig: () => Promise.resolve(false),
    env: {},
  };
  const opening = await checkOpening(instance, request, log);
  return await readySession(instance, opening, request, log);
}

test("a session keeps its permission mode", async (fake) => {
  const { engine, instance, told } = fake;
  engine.run = claudeRuns(false);
  const { session, command } = await open(fake, "plan");
  assert.match(command.join(" "), "--permission-mode plan");
  assert.is(readSession(instance, session)?.permissionMode, "plan");
  assert.is(told.filter((line) => /mode/.test(line)).length, 0);
  const again = await open(fake);
  assert.match(again.command.join(" "), "--permission-mode plan");
  // The user's own arguments come later: the CLI uses the last one.
  assert.match(again.command.join(" "), /plan .*--model opus/);
  assert.match(
    told.join("\n"),
    "Permission mode: plan (chosen for this session;",
  );
  await open(fake, "manual");
  assert.is(readSession(instance, session)?.permissionMode, "manual");
});

test("another permission mode for a running session is refused", async (fake) => {
  const { engine, instance } = fake;
  engine.run = claudeRuns(false);
  const { session } = await open(fake, "plan");
  engine.run = claudeRuns(true);
  const request = {
    directory: fake.project("app"),
    cwd: "/",
    profile: { name: undefined, build: false },
    mcp: undefined,
    claudeArguments: [],
    approveConfig: () => Promise.resolve(false),
    env: {},
  };
  const openAs = async (permissionMode?: "plan" | "auto") => {
    const asked = { ...request, permissionMode };
    const opening = await checkOpening(instance, asked, fake.log);
    return await readySession(instance, opening, asked, fake.log);
  };
  const failure = await openAs("auto").then(
    () => assert.unreachable() as never,
    (error) => error,
  );
  assert.ok(failure instanceof Failure);
  assert.is(failure.kind, "busy");
  assert.is(
    failure.message,
    `Session "${session}" is running: permission mode auto has no effect`,
  );
  assert.is((await openAs("plan")).start, "running");
  await openAs();
  assert.is(readSession(instance, session)?.permissionMode, "plan");
});

test("the format of an answer is chosen once", () => {
  assert.is(outputFormat({}), "text");
  assert.is(outputFormat({ json: true }), "json");
  assert.is(outputFormat({ outputFormat: "stream-json" }), "stream-json");
  assert.is(outputFormat({ "--": ["--output-format", "json"] }), undefined);
  assert.throws(
    () => outputFormat({ outputFormat: "xml" }),
    /--output-format must be one of text, json, stream-json, got "xml"/,
  );
  for (
    const twice of [
      { json: true, outputFormat: "text" },
      { json: true, "--": ["--output-format=text"] },
    ]
  ) {
    assert.throws(() => outputFormat(twice), /format was given twice/);
  }
});

test("prints the answer, and reports retries and warnings", () => {
  const logged: string[] = [];
  const text = (event: unknown) =>
    answerLine(JSON.stringify(event), "text", (line) => logged.push(line));
  const retry = {
    type: "system",
    subtype: "api_retry",
    attempt: 1,
    max_retries: 10,
    retry_delay_ms: 590,
    error_status: 529,
    error: "overloaded",
  };
  assert.is(text(retry), undefined);
  assert.is(text({ ...retry, attempt: 2, error_status: null }), undefined);
  assert.is(text({ ...retry, attempt: 3, error_status: 401 }), undefined);
  assert.is(text({ ...retry, attempt: "many" }), undefined);
  const notice = { type: "system", subtype: "informational", content: "Old" };
  assert.is(text({ ...notice, level: "warning" }), undefined);
  assert.equal(logged, [
    "The API answered 529 (overloaded); retry 1 of 10 in 0.6 s",
    "The API did not answer (overloaded); retry 2 of 10 in 0.6 s",
    "The API refused the credentials with 401 (overloaded); retry 3 of 10 in 0.6 s",
    "Old",
  ]);
  assert.is(text({ type: "assistant", message: {} }), undefined);
  assert.is(text({ type: "result", result: "a\nb" }), "a\nb");
  assert.is(text({ type: "result", errors: ["Too far"] }), "Error: Too far");
  assert.is(answerLine("no JSON", "text", () => {}), "no JSON");
  const result = '{"type":"result","result":"a","total_cost_usd":1}';
  assert.is(answerLine(result, "json", () => {}), result);
});

test("holds the last result back, and prints what comes before it", () => {
  const hold = new HeldResult();
  const result = (text: string) =>
    JSON.stringify({ type: "result", result: text });
  assert.is(hold.take("no JSON"), "no JSON");
  assert.is(hold.take('{"type":"system"}', () => undefined), undefined);
  assert.is(hold.take(result("one")), undefined);
  assert.is(hold.take(result("two")), result("one"));
  assert.is(hold.line, result("two"));
});

test("reports that the answer is waited for", async () => {
  const logged: string[] = [];
  const answer = whileWaiting(
    sleep(100).then(() => 3),
    (line) => logged.push(line),
    20,
  );
  assert.is(await answer, 3);
  assert.is(logged[0], "Waiting for the answer for 0 s");
  const count = logged.length;
  await sleep(50);
  assert.is(logged.length, count);
});

test("splits output into lines of a limited length", async () => {
  const read = async (chunks: string[], maxBytes = 100) => {
    const lines: string[] = [];
    const bytes = Readable.from(chunks.map((text) => Buffer.from(text)));
    for await (const line of linesOf(bytes, maxBytes)) lines.push(line);
    return lines;
  };
  assert.equal(await read(["a", "b\nc\n\nd"]), ["ab", "c", "", "d"]);
  assert.equal(await read([]), []);
  const failure = await read(["a\nbcd", "ef"], 4).catch((error) => error);
  assert.is(failure.message, "A line of the output is too long");
});

test("a mode in hal9000.conf that does not exist is an error that names the line", async ({ instance }) => {
  mkdirSync(dirname(instance.home.conf), { recursive: true });
  writeFileSync(instance.home.conf, "PERMISSION_MODES=/p=all\n");
  const { code, stderr } = await runMain(claudy, ["config", "show"], {
    env: { HAL9000_HOME: instance.home.home },
  });
  assert.is(code, 2);
  assert.match(stderr, "config/hal9000.conf:1: PERMISSION_MODES must be");
});

test.run();
