// The display of steps, on a terminal and without one, and the last lines of up.

import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Io } from "../../lib/cli/io.ts";
import { stepLine, Steps } from "../../lib/cli/steps.ts";
import { claudyName, nextSteps } from "../../lib/commands/up.ts";

const test = suite("steps");

/** An Io and what it has printed on stderr. */
function printing({ isTTY = true, columns = 80, env = {} } = {}) {
  const shown = { text: "" };
  const stderr = {
    isTTY,
    columns,
    write: (text: string | Uint8Array) => {
      shown.text += String(text);
      return true;
    },
  };
  const stdin = new PassThrough() as unknown as NodeJS.ReadStream;
  const io = new Io({ env, stdin, stdout: stderr, stderr });
  return { io, shown, step: new Steps(io).run };
}

/** What a terminal shows after the text: each erased line is replaced. */
const screen = (text: string) =>
  text.split("\n").map((line) => line.split("\r\x1b[K").at(-1)).join("\n");

/** Times depend on the machine. */
const timeless = (text: string) => text.replace(/ {2,}\d+\.\d s/g, " 0.0 s");

const failing = () => Promise.reject(new Error("broken"));

test("stepLine() has the name, the time and the result in columns", () => {
  assert.is(
    stepLine("Parent", 1849, "hal9000-parent"),
    "Parent                   1.8 s  hal9000-parent",
  );
  assert.is(
    stepLine("Image worker-ultramin", 123_456, ""),
    "Image worker-ultramin  123.5 s",
  );
});

test("a terminal shows a finished step as a line, and nothing else remains", async () => {
  const { step, shown } = printing();
  const result = await step("Engine", async (log) => {
    log("Starting the engine");
    await sleep(250); // two frames
    return 7;
  }, (result) => `is ${result}`);
  assert.is(result, 7);
  assert.match(shown.text, "⠋ Engine 0 s (Starting the engine)");
  assert.match(shown.text, "⠙ Engine 0 s (Starting the engine)");
  assert.is(timeless(screen(shown.text)), "✓ Engine 0.0 s  is 7\n");
});

test("steps at the same time share the line of progress", async () => {
  const { step, shown } = printing();
  await step("Images", async () => {
    await Promise.all(
      ["a", "b"].map((name) => step(name, () => sleep(10), () => "done")),
    );
  }, () => "all");
  assert.match(shown.text, "⠋ b 0 s, a 0 s, Images 0 s");
  const lines = timeless(screen(shown.text)).trimEnd().split("\n").sort();
  assert.equal(lines, [
    "✓ Images 0.0 s  all",
    "✓ a 0.0 s  done",
    "✓ b 0.0 s  done",
  ]);
});

test("a failed step shows its log, and leaves no line of progress", async () => {
  const { step, shown } = printing();
  const error = await step("Images", (log) => {
    log("the compiler's message");
    return failing();
  }).catch((error) => error);
  assert.is(error.message, "broken");
  assert.is(
    timeless(screen(shown.text)),
    "the compiler's message\n✗ Images 0.0 s  failed\n",
  );
});

test("lines that others print stand above the line of progress", async () => {
  const { io, step, shown } = printing();
  await step("Parent", (log) => {
    io.log("one");
    log("warning: two");
    assert.is(screen(shown.text), "one\nwarning: two\n⠋ Parent 0 s");
    return Promise.resolve();
  }, () => "three");
});

test("progress is as wide as the terminal at most, and one line", () => {
  const { io, shown } = printing({ columns: 10 });
  io.progress("123456\n789012345");
  assert.is(shown.text.length, 9);
  assert.not.match(shown.text, /\n/);
});

test("no progress is drawn while a question waits, and after an error", () => {
  const { io, shown } = printing();
  io.progress("working");
  const resume = io.holdProgress();
  const held = shown.text;
  io.progress("still working");
  assert.is(shown.text, held);
  assert.is(screen(held), "");
  resume();
  assert.is(screen(shown.text), "still working");
});

for (
  const [name, options] of Object.entries({
    "without a terminal": { isTTY: false },
    "on a terminal that cannot erase": { env: { TERM: "dumb" } },
  })
) {
  test(`${name} there are plain lines without escape sequences`, async () => {
    const { step, shown } = printing(options);
    await step("Engine", async (log) => {
      log("Starting the engine");
      await sleep(150);
    }, () => "Docker 26");
    await step("Volumes", () => Promise.resolve());
    await step("Images", failing).catch(() => {});
    assert.is(
      timeless(shown.text),
      "Starting the engine\nEngine 0.0 s  Docker 26\nImages 0.0 s  failed\n",
    );
  });
}

test("nextSteps() begins with signing in if there is no credential", () => {
  const worker = { name: "claudy-app-1", project: "/a b" };
  const lines = (isSignedIn: boolean) =>
    nextSteps(worker, "claudy", { isSignedIn }).split("\n");
  assert.equal(lines(false), [
    "Worker claudy-app-1 runs on /a b",
    "",
    "Sign in:            claudy login",
    "Open Claude in it:  claudy $'/a b'",
    "Stop this worker:   claudy stop claudy-app-1",
    "All commands:       claudy --help",
  ]);
  assert.is(lines(true).length, 5);
});

test("claudyName() is a path unless claudy is on PATH", () => {
  const bin = mkdtempSync(join(tmpdir(), "hal9000-bin-"));
  try {
    assert.match(claudyName({ PATH: bin }), /\/scripts\/claudy\.ts$/);
    writeFileSync(join(bin, "claudy"), "");
    assert.match(claudyName({ PATH: bin }), /\/scripts\/claudy\.ts$/);
    chmodSync(join(bin, "claudy"), 0o755);
    assert.is(claudyName({ PATH: `/nonexistent:${bin}` }), "claudy");
  } finally {
    rmSync(bin, { recursive: true });
  }
});

test.run();
