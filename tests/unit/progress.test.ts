// The progress of a move, on a terminal and elsewhere, with a clock of the test.

import { PassThrough } from "node:stream";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Io } from "../../lib/cli/io.ts";
import { track } from "../../lib/commands/moves.ts";

interface Context {
  /** Lets time pass. */
  pass: (ms: number) => void;
  restore: () => void;
}

const test = suite<Context>("progress");

test.before.each((context) => {
  const { now } = performance;
  let at = 1000;
  performance.now = () => at;
  context.pass = (ms) => void (at += ms);
  context.restore = () => performance.now = now;
});
test.after.each(({ restore }) => restore());

function tracked(isTTY: boolean) {
  let shown = "";
  const stream = Object.assign(new PassThrough(), {
    isTTY,
    write: (text: string | Uint8Array) => {
      shown += String(text);
      return true;
    },
  }) as unknown as NodeJS.WriteStream;
  const stdin = new PassThrough() as unknown as NodeJS.ReadStream;
  const io = new Io({ env: {}, stdin, stdout: stream, stderr: stream });
  return { ...track(io), shown: () => shown };
}

test("each phase is logged, and its duration is reported at the end", ({ pass }) => {
  const { begin, phases, shown } = tracked(false);
  pass(5000);
  begin("Reading");
  pass(1200.4);
  begin("Copying");
  pass(300);
  assert.equal(phases(), [
    { what: "Reading", ms: 1200 },
    { what: "Copying", ms: 300 },
  ]);
  assert.is(shown(), "Reading\nCopying\n");
});

test("elsewhere than on a terminal, progress is a line every five seconds", ({ pass }) => {
  const { begin, shown } = tracked(false);
  const progress = begin("Copying");
  pass(4999);
  progress(1, 1024, 10);
  assert.is(shown(), "Copying\n");
  pass(1);
  progress(4, 9 * 1024);
  assert.is(shown(), "Copying\n  5 of 10 files, 10 KiB, 2 KiB/s\n");
  pass(4999);
  progress(1, 0);
  assert.is(shown().split("\n").length, 3);
  pass(1);
  progress(1, 0, 5);
  assert.match(shown(), "  7 of 15 files, 10 KiB, 1 KiB/s\n");
});

test("on a terminal, one line is updated five times a second, and ended before the next", ({ pass }) => {
  const { begin, log, shown } = tracked(true);
  const progress = begin("Copying");
  pass(199);
  progress(1, 1024, 2);
  assert.is(shown(), "Copying\n");
  pass(1);
  progress(1, 1024);
  const line = "\r\x1b[K  2 of 2 files, 2 KiB, 10 KiB/s";
  assert.is(shown(), `Copying\n${line}`);
  log("Done");
  log("Really");
  assert.is(shown(), `Copying\n${line}\nDone\nReally\n`);
});

test.run();
