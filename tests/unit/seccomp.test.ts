import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { homePaths } from "../../lib/instance/paths.ts";
import {
  faultIn,
  readTrial,
  workerProfile,
  workerProfileText,
} from "../../lib/image/seccomp.ts";

const test = suite("seccomp");

const profile = JSON.parse(workerProfileText().text) as ReturnType<
  typeof workerProfile
>;

const rulesFor = (name: string) =>
  profile.syscalls.filter(({ names }) => names.includes(name));

test("workerProfile() allows a mode only without set-uid and set-gid", () => {
  for (const [name, index] of [["chmod", 1], ["fchmodat", 2], ["creat", 1]]) {
    assert.equal(rulesFor(name as string), [{
      names: [name],
      action: "SCMP_ACT_ALLOW",
      args: [{
        index,
        value: 0o6000,
        valueTwo: 0,
        op: "SCMP_CMP_MASKED_EQ",
      }],
    }]);
  }
});

test("workerProfile() checks the mode of open only if it creates a file", () => {
  const masks = rulesFor("openat").map(({ args }) =>
    args?.map(({ index, value }) => [index, value])
  );
  assert.equal(masks, [[[3, 0o6000]], [[2, 0o20000100]]]);
});

test("workerProfile() returns ENOSYS for calls with hidden arguments", () => {
  for (const name of ["openat2", "fchmodat2", "io_uring_setup"]) {
    const [rule, ...others] = rulesFor(name);
    assert.equal(others, []);
    assert.equal([rule?.action, rule?.errnoRet], ["SCMP_ACT_ERRNO", 38]);
  }
});

test("workerProfile() has no rule for other ABIs, capabilities or socketcall", () => {
  assert.not(profile.archMap.some((arch) => "subArchitectures" in arch));
  assert.equal(rulesFor("socketcall"), []);
  assert.equal(rulesFor("mount"), []);
  assert.equal(rulesFor("open_by_handle_at"), []);
  assert.ok(rulesFor("clone").length > 0);
  assert.ok(rulesFor("execve").length === 1);
});

test("readTrial() ignores results of another profile and invalid files", () => {
  const home = homePaths(mkdtempSync(join(tmpdir(), "hal9000-seccomp-")));
  mkdirSync(dirname(home.seccompTrial), { recursive: true });
  const write = (value: unknown) =>
    writeFileSync(home.seccompTrial, JSON.stringify(value));
  assert.is(readTrial({ home }), undefined);
  const { digest } = workerProfileText();
  const trial = { version: 1, profile: digest, engine: "20.10", fault: null };
  write(trial);
  assert.equal(readTrial({ home }), trial);
  write({ ...trial, profile: "another" });
  assert.is(readTrial({ home }), undefined);
  write("junk");
  assert.is(readTrial({ home }), undefined);
  rmSync(home.home, { recursive: true });
});

test("faultIn() accepts only a refusal as a working profile", () => {
  assert.is(faultIn("refused"), null);
  assert.is(faultIn("set"), "it has no effect");
  assert.match(faultIn("bash: killed") ?? "", /cannot run with it: bash/);
  assert.match(faultIn("") ?? "", /no output/);
});

test.run();
