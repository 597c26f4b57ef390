import { cac } from "cac";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { lastLines } from "../../lib/cli/logs.ts";
import {
  explicitFlags,
  flagsOf,
  listOf,
  refuseEmpty,
  wholeNumber,
} from "../../lib/cli/options.ts";
import type { Failure } from "../../lib/std/errors.ts";
import { didYouMean } from "../../lib/std/nearest.ts";

const test = suite("options");

function parse(...words: string[]) {
  const cli = cac("x");
  cli.command("[directory]")
    .option("-d, --detach", "")
    .option("--allow-any-path", "")
    .option("--no-limits", "")
    .option("-n, --name <name>", "")
    .action(() => {});
  const argv = explicitFlags(words, cli);
  return cli.parse(["", "", ...argv], { run: false });
}

test("explicitFlags() does not take the word after a flag as its value", () => {
  for (const flag of ["-d", "--detach", "--allow-any-path", "--no-limits"]) {
    for (const directory of ["007", "1e3", "true", "/etc"]) {
      assert.equal(parse(flag, directory).args, [directory], flag);
    }
  }
});

test("explicitFlags() does not change values and words after --", () => {
  const { args, options } = parse("-n", "abc", "dir", "--", "-d", "--detach");
  assert.equal(args, ["dir"]);
  assert.is(options["name"], "abc");
  assert.is(options["detach"], undefined);
  assert.equal(options["--"], ["-d", "--detach"]);
});

test("wholeNumber() accepts only digits, up to the largest exact number", () => {
  assert.is(wholeNumber("--tail", undefined), undefined);
  assert.is(wholeNumber("--tail", 0), 0);
  assert.is(wholeNumber("--tail", "9007199254740991"), 9007199254740991);
  for (const value of ["", "x", "-1", "1.5", "1e3", "9007199254740992", true]) {
    assert.throws(
      () => wholeNumber("--tail", value),
      ({ kind, message }: Failure) =>
        kind === "usage" &&
        message === `--tail must be a whole number, got "${value}"`,
    );
  }
});

test("listOf() returns the values of a repeatable option as texts", () => {
  assert.equal(listOf(undefined), []);
  assert.equal(listOf([undefined]), []);
  assert.equal(listOf("a"), ["a"]);
  assert.equal(listOf(["a", 7]), ["a", "7"]);
});

test("flagsOf() takes given options as settings, with their place", () => {
  const names = {
    pidsLimit: "WORKER_PIDS_LIMIT",
    cpus: "WORKER_CPUS",
  } as const;
  assert.equal(flagsOf({ pidsLimit: 50, other: 1 }, names), {
    WORKER_PIDS_LIMIT: { text: "50", place: "--pids-limit" },
  });
});

test("an option may be given once, and no argument is empty, up to --", () => {
  refuseEmpty(["a", "--", ""]);
  for (const argv of [[""], ["a", "", "--"]]) {
    assert.throws(() => refuseEmpty(argv), /An argument is empty/);
  }
});

test("the last lines of a log are counted without its final line break", () => {
  assert.is(lastLines("a\nb\n", {}), "a\nb");
  assert.is(lastLines("a\nb", { tail: 1 }), "b");
  assert.is(lastLines("a\n\n", { tail: 1 }), "");
  assert.is(lastLines("a\nb\n", { tail: 0 }), "");
  assert.is(lastLines("", { tail: 5 }), "");
});

test("didYouMean() accepts two errors, or one in three letters", () => {
  assert.is(didYouMean("lisst", ["lit"]), 'Did you mean "lit"? ');
  assert.is(didYouMean("lissst", ["lit"]), "");
  assert.is(didYouMean("abcdefghi", ["abcdef"]), 'Did you mean "abcdef"? ');
});

test("didYouMean() suggests only similar names", () => {
  assert.is(didYouMean("lst", ["list", "stop"]), 'Did you mean "list"? ');
  assert.is(didYouMean("--json", ["--help", "--yes"]), "");
  assert.is(didYouMean("x", []), "");
  // Two changes would turn a short word into any other.
  assert.is(didYouMean("rm", ["run", "ps"]), "");
  assert.is(didYouMean("ssh", ["ls"]), "");
  assert.is(didYouMean("lsit", ["list"]), 'Did you mean "list"? ');
});

test.run();
