// The terminal type of programs in a container.

import { Buffer } from "node:buffer";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  terminalScript,
  terminalVariables,
} from "../../lib/docker/terminfo.ts";

const test = suite<{ root: string }>("terminfo");

test.before.each((context) => {
  context.root = mkdtempSync(join(tmpdir(), "hal9000-terminfo-"));
});
test.after.each(({ root }) => rmSync(root, { recursive: true }));

/** The magic number of a compiled description, and its names. */
const compiled = Buffer.from("\x1a\x01x-strange|a terminal");

function describe(directory: string, place: string, content = compiled): void {
  mkdirSync(join(directory, place), { recursive: true });
  writeFileSync(join(directory, place, "x-strange"), content);
}

const encoded = `b64:${compiled.toString("base64")}`;

test("the description of the caller's terminal is brought along", ({ root }) => {
  const TERM = "x-strange";
  describe(join(root, ".terminfo"), "x");
  assert.equal(terminalVariables({ TERM, HOME: root }), {
    TERM,
    TERMINFO: encoded,
  });
  assert.equal(terminalVariables({ TERM, HOME: "/none" }), { TERM });
  // File systems without upper case use the code of the first letter.
  describe(join(root, "other"), "78");
  assert.equal(
    terminalVariables({ TERM, TERMINFO: join(root, "other") }),
    { TERM, TERMINFO: encoded },
  );
  assert.equal(
    terminalVariables({ TERM, TERMINFO_DIRS: `/none::${join(root, "other")}` }),
    { TERM, TERMINFO: encoded },
  );
  assert.equal(terminalVariables({ TERM, TERMINFO: encoded }), {
    TERM,
    TERMINFO: encoded,
  });
});

test("what is no description of a terminal is not brought along", ({ root }) => {
  const TERM = "x-strange";
  const home = { TERM, HOME: root };
  for (
    const content of [
      Buffer.from("no"),
      Buffer.alloc(0),
      Buffer.concat([compiled, Buffer.alloc(99_999)]),
    ]
  ) {
    describe(join(root, ".terminfo"), "x", content);
    assert.equal(terminalVariables(home), { TERM });
  }
  rmSync(join(root, ".terminfo/x/x-strange"));
  mkdirSync(join(root, ".terminfo/x/x-strange"));
  assert.equal(terminalVariables(home), { TERM });
});

for (const TERM of [undefined, "", "../x", "a/b", "x y", "-x", "é", "dumb"]) {
  test(`the terminal ${TERM} is taken as xterm-256color`, () => {
    assert.equal(terminalVariables({ TERM }), { TERM: "xterm-256color" });
  });
}

const started: [what: string, env: Record<string, string>, terminal: string][] =
  [
    ["keeps a terminal that the image has", { TERM: "xterm" }, "xterm "],
    [
      "prefers the image's description",
      { TERM: "xterm", TERMINFO: encoded },
      "xterm ",
    ],
    [
      "uses the caller's description",
      { TERM: "x-strange", TERMINFO: encoded },
      `x-strange ${encoded}`,
    ],
    [
      "falls back to a common terminal",
      { TERM: "xterm-strange" },
      "xterm-256color ",
    ],
  ];

for (const [what, env, terminal] of started) {
  test(`the container ${what}`, () => {
    const { stdout } = spawnSync(
      "sh",
      ["-c", `${terminalScript}\nprintf '%s %s' "$TERM" "$TERMINFO"`],
      { env: { PATH: process.env["PATH"], ...env }, encoding: "utf8" },
    );
    assert.is(stdout, terminal);
  });
}

test.run();
