// A session's permission request: how it is found on a screen, and how it is answered.

import { spawnSync } from "node:child_process";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { answerRequest, requestOn } from "../../lib/session/permission.ts";
import { screenOf } from "../../lib/session/tmux.ts";
import { fakeInstance } from "../helper/fake-engine.ts";

const ruler = "─".repeat(80);

/** As the CLI 2.1.296 draws it. */
const bash = `❯ do it

  Ask
  ⎿  $ touch /tmp/asked

${ruler}
 Bash command
 Tip: auto mode handles these prompts for you
 ask
${"╌".repeat(80)}
 touch /tmp/asked
${"╌".repeat(80)}
 Do you want to proceed?
 ❯ 1. Yes
   2. Yes, and always allow access to /tmp from this project
   3. Yes, and switch to auto mode · auto mode handles these prompts for you
   4. No

 Esc to cancel · Tab to amend
`;

test("requestOn() gives the request and the keys of its answers", () => {
  const found = requestOn(bash);
  assert.equal(found?.lines, [
    " Bash command",
    " Tip: auto mode handles these prompts for you",
    " ask",
    " touch /tmp/asked",
    " Do you want to proceed?",
  ]);
  assert.is(found?.yes, "1");
  assert.is(found?.no, "4");
  assert.ok(bash.includes(found?.dialog ?? "none"));
  assert.ok(found?.dialog.startsWith(ruler));
  assert.ok(found?.dialog.endsWith("4. No"));
});

test("requestOn() finds the real answers behind what looks like them", () => {
  const command = ` printf '\n${
    [" ❯ 1. Yes", "   9. No", ` ${ruler}`].join("\n")
  }'`;
  const found = requestOn(
    bash.replace(" touch /tmp/asked\n╌", `${command}\n╌`),
  );
  assert.match(found?.lines.join("\n") ?? "", "9. No");
  assert.is(found?.no, "4");
});

const others: [what: string, screen: string][] = [
  ["an empty screen", ""],
  ["a prompt", `${ruler}\n❯ \n${ruler}\n  ? for shortcuts\n`],
  [
    "a request whose beginning is not on the screen",
    bash.slice(bash.indexOf(" Tip")),
  ],
  [
    "a question without a plain Yes",
    bash.replace("1. Yes", "1. Yes, and accept edits"),
  ],
  ["a question without a No", bash.replace("4. No", "4. Never")],
  ["a list of choices", `${ruler}\n Which?\n ❯ 1. Red\n   2. Blue\n`],
];

for (const [what, screen] of others) {
  test(`requestOn() finds none on ${what}`, () => {
    assert.is(requestOn(screen), undefined);
  });
}

/** Answers with a fake tmux, whose screen is a file; returns the keys it got. */
async function answerOn(screen: string, isAllowed: boolean) {
  const directory = mkdtempSync(join(tmpdir(), "hal9000-permission-"));
  const { engine, instance, end } = fakeInstance();
  try {
    const bin = join(directory, "bin");
    mkdirSync(bin);
    writeFileSync(
      join(bin, "tmux"),
      `#!/bin/sh\ncase "$*" in *capture-pane*) cat '${directory}/screen' ;; *) echo "$@" >'${directory}/keys' ;; esac\n`,
    );
    chmodSync(join(bin, "tmux"), 0o755);
    writeFileSync(join(directory, "keys"), "");
    writeFileSync(join(directory, "screen"), screen);
    const PATH = `${bin}:${process.env["PATH"]}`;
    engine.run = ([file = "", ...args]) => ({
      exitCode: spawnSync(file, args, { env: { PATH } }).status ?? 1,
    });
    engine.add("worker");
    const request = requestOn(bash);
    assert.ok(request);
    const { docker } = instance;
    const isGiven = await answerRequest(docker, "worker", request, isAllowed);
    return { isGiven, keys: readFileSync(join(directory, "keys"), "utf8") };
  } finally {
    end();
    rmSync(directory, { recursive: true });
  }
}

for (const [isAllowed, key] of [[true, "1"], [false, "4"]] as const) {
  test(`answerRequest() types ${key} and nothing else`, async () => {
    const { isGiven, keys } = await answerOn(bash, isAllowed);
    assert.ok(isGiven);
    assert.match(keys, new RegExp(`send-keys -t =claude: -l ${key}\\n$`));
  });
}

test("answerRequest() types nothing if the screen shows another request", async () => {
  for (
    const screen of [
      "",
      bash.replaceAll("/tmp/asked", "/tmp/other"),
      bash.replace("❯ 1", "  1"),
    ]
  ) {
    assert.equal(await answerOn(screen, true), { isGiven: false, keys: "" });
  }
});

test("screenOf() gives the end of what a worker prints, and no more than a screen", async () => {
  const { engine, instance, end } = fakeInstance();
  try {
    engine.add("worker");
    engine.run = () => ({ exitCode: 0, output: `${"x".repeat(1e6)}end` });
    const screen = await screenOf(instance.docker, "worker");
    assert.is(screen.length, 64 * 1024);
    assert.ok(screen.endsWith("xend"));
    engine.run = () => ({ exitCode: 1, output: "no server running" });
    assert.is(await screenOf(instance.docker, "worker"), "");
  } finally {
    end();
  }
});

test.run();
