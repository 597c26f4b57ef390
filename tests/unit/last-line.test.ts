// The last line of a conversation, from its file.

import {
  mkdirSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { lastLine, lastLineOf } from "../../lib/session/transcript.ts";
import { fakeInstance } from "../helper/fake-engine.ts";

const entry = (type: string, content: unknown, more = {}) =>
  JSON.stringify({ type, message: { role: type, content }, ...more });

const text = (text: string) => [{ type: "text", text }];

const conversations: [what: string, lines: string[], last: string][] = [
  [
    "the last line of an answer",
    [entry("assistant", text("one\n\n two \n\n"))],
    "two",
  ],
  ["a tool with what it is called with", [
    entry("assistant", [...text("I look"), {
      type: "tool_use",
      name: "Bash",
      input: { timeout: 5, command: "ls\n-l", description: "list" },
    }]),
  ], "[Bash] ls"],
  ["the user's prompt", [
    entry("assistant", text("before")),
    entry("user", "do it"),
  ], "> do it"],
  ["the newest entry with a text", [
    entry("assistant", text("answer")),
    entry("user", [{ type: "tool_result", content: "x" }]),
    entry("user", "hidden", { isMeta: true }),
    entry("assistant", [{ type: "thinking", thinking: "hm" }]),
    JSON.stringify({ type: "last-prompt", lastPrompt: "p" }),
    entry("assistant", 7),
    '{"type":"assis',
    "",
  ], "answer"],
  ["nothing of no conversation", [""], ""],
];

for (const [what, lines, last] of conversations) {
  test(`lastLineOf() gives ${what}`, () => {
    assert.is(lastLineOf(lines.join("\n")), last);
  });
}

test("lastLineOf() gives no more than a terminal shows", () => {
  assert.is(lastLineOf(entry("user", "x".repeat(9999))).length, 500);
});

test("lastLine() reads the end of the newest file, and follows no link", () => {
  const { instance, root, end } = fakeInstance();
  try {
    assert.is(lastLine(instance, "s"), "");
    const directory = join(instance.home.claude, "s", "projects", "-workspace");
    mkdirSync(directory, { recursive: true });
    const write = (name: string, content: string, seconds: number) => {
      writeFileSync(join(directory, name), `${content}\n`);
      utimesSync(join(directory, name), seconds, seconds);
    };
    write("old.jsonl", entry("user", "old"), 1000);
    write("other.txt", entry("user", "other"), 4000);
    const long = `${entry("user", "y".repeat(99_999))}\n`.repeat(9);
    write("new.jsonl", long + entry("user", "new"), 2000);
    const outside = join(root, "outside.jsonl");
    writeFileSync(outside, entry("user", "outside"));
    symlinkSync(outside, join(directory, "link.jsonl"));
    assert.is(lastLine(instance, "s"), "> new");
    rmSync(join(directory, "new.jsonl"));
    assert.is(lastLine(instance, "s"), "> old");
    // Only the end of the file is read, and there a longer message has no beginning.
    write(
      "old.jsonl",
      `${entry("user", "old")}\n${entry("user", "z".repeat(299_999))}`,
      1000,
    );
    assert.is(lastLine(instance, "s"), "");
    // The CLI writes its system prompt after the first answer.
    const prompt = { type: "attachment", attachment: "p".repeat(95_000) };
    write(
      "old.jsonl",
      `${entry("assistant", text("old"))}\n${JSON.stringify(prompt)}`,
      1000,
    );
    assert.is(lastLine(instance, "s"), "old");
  } finally {
    end();
  }
});

test.run();
