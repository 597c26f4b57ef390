// The dialogues of commands at a terminal, and what they print.

import { PassThrough } from "node:stream";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Io } from "../../lib/cli/io.ts";
import type { Failure } from "../../lib/std/errors.ts";
import { waitFor } from "../../lib/std/wait.ts";

const test = suite("io");

interface Terminal {
  io: Io;
  type: (text: string) => void;
  /** What was printed on both streams. */
  shown: { stdout: string; stderr: string };
  /** The changes of the raw mode. */
  raw: boolean[];
}

function terminal({ isTTY = true } = {}): Terminal {
  const raw: boolean[] = [];
  const stdin = Object.assign(new PassThrough(), {
    isTTY,
    setRawMode: (on: boolean) => void raw.push(on),
  });
  const shown = { stdout: "", stderr: "" };
  const stream = (name: keyof typeof shown) =>
    Object.assign(new PassThrough(), {
      isTTY,
      write: (text: string | Uint8Array) => {
        shown[name] += String(text);
        return true;
      },
    });
  const io = new Io({
    env: {},
    stdin: stdin as unknown as NodeJS.ReadStream,
    stdout: stream("stdout") as unknown as NodeJS.WriteStream,
    stderr: stream("stderr") as unknown as NodeJS.WriteStream,
  });
  return { io, type: (text) => void stdin.write(text), shown, raw };
}

/** Resolves when a question waits for its answer. */
const questioned = (shown: Terminal["shown"]) =>
  waitFor(() => /(\[y\/N\]|cancel:) /.test(shown.stderr), {
    for: "the question",
    timeoutMs: 5000,
  });

const failureOf = (done: Promise<unknown>) =>
  done.then(
    () => "none",
    ({ kind, message }: Failure) => `${kind}: ${message}`,
  );

test("a secret is read without echo up to Enter, with corrections", async () => {
  const { io, type, shown, raw } = terminal();
  const asked = io.askHidden("API key");
  type(" sk-ab");
  type("x\x7f\x7fc\rmore");
  assert.is(await asked, "sk-ac");
  assert.is(shown.stderr, "API key (hidden): \n");
  assert.is(shown.stdout, "");
  assert.equal(raw, [true, false]);
});

for (
  const [key, code] of Object.entries({ "Ctrl-C": "\x03", "Ctrl-D": "\x04" })
) {
  test(`${key} cancels the input of a secret and restores the terminal`, async () => {
    const { io, type, raw } = terminal();
    const asked = failureOf(io.askHidden("API key"));
    type(`secret${code}`);
    assert.is(await asked, "unsafe: Cancelled");
    assert.equal(raw, [true, false]);
  });
}

test("only y and yes confirm a question", async () => {
  const replies = { y: true, YES: true, n: false, "": false, yess: false };
  for (const [reply, confirms] of Object.entries(replies)) {
    const { io, type, shown } = terminal();
    const asked = failureOf(io.confirm("Remove \x1b[31mit?"));
    await questioned(shown);
    type(`${reply}\n`);
    assert.is(await asked, confirms ? "none" : "unsafe: Cancelled", reply);
    assert.match(shown.stderr, "Remove \\x1b[31mit? [y/N] ");
  }
});

test("what was typed before a question does not answer it", async () => {
  const { io, type, shown, raw } = terminal();
  type("y\n");
  const asked = failureOf(io.confirm("Remove it?"));
  await questioned(shown);
  type("n\n");
  assert.is(await asked, "unsafe: Cancelled");
  // Raw, to get what is still being edited too; not while it is answered.
  assert.equal(raw.slice(0, 2), [true, false]);
  const early = terminal();
  early.type("\x03");
  assert.is(
    await failureOf(early.io.confirm("Remove it?")),
    "unsafe: Cancelled",
  );
  assert.is(early.shown.stderr, "");
});

test("a question needs a terminal, unless it was confirmed before", async () => {
  const { io, shown } = terminal({ isTTY: false });
  await io.confirm("Remove it?", true);
  assert.is(shown.stderr, "");
  assert.is(
    await failureOf(io.confirm("Remove it?")),
    "unsafe: Not a terminal, so cannot ask: Remove it?",
  );
  assert.is(io.isInteractive, false);
  assert.is(terminal().io.isInteractive, true);
});

test("one of several choices is chosen by its number; anything else cancels", async () => {
  const replies = { "1": 0, "2": 1, "3": -1, "0": -1, "": -1, "1x": -1 };
  for (const [reply, index] of Object.entries(replies)) {
    const { io, type, shown } = terminal();
    const asked = io.choose("Which?", ["one", "two"]).catch(() => -1);
    await questioned(shown);
    type(`${reply}\n`);
    assert.is(await asked, index, reply);
    assert.ok(shown.stderr.startsWith("Which?\n  1  one\n  2  two\n"));
    assert.match(shown.stderr, "1 to 2, or Enter to cancel: ");
  }
});

test("on a terminal, control characters of the result are escaped or dropped", () => {
  const at = terminal();
  at.io.answer(null, "a\x1b]0;t\x07b");
  at.io.answer({ name: "\x9b\u202e\u2028" }, "", true);
  for (const control of "\x07\x1b\x9b\u202e\u2028") {
    assert.not.ok(at.shown.stdout.includes(control));
  }
  assert.match(at.shown.stdout, '"name": "\\u009b\\u202e\\u2028"');
  assert.ok(at.shown.stdout.startsWith("ab\n"));
  const piped = terminal({ isTTY: false });
  piped.io.answer({ name: "\u202e" }, "", true);
  assert.is(piped.shown.stdout, '{\n  "name": "\u202e"\n}\n');
});

test("an empty result prints nothing; one of several is a line of its own", () => {
  const { io, shown } = terminal({ isTTY: false });
  io.answer([], "");
  io.answerLine({ a: 1 }, "text", true);
  io.answerLine({ a: 1 }, "text");
  io.answerLine({ a: 1 }, "");
  assert.is(shown.stdout, '{"a":1}\ntext\n\n');
});

test("progress keeps lines and tabs, and escapes other control characters", () => {
  const { io, shown } = terminal();
  io.log("one\n\ttwo\x07\r\u{e0001}");
  assert.is(shown.stderr, "one\n\ttwo\\x07\\x0d\\u{e0001}\n");
});

test.run();
