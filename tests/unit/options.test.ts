import { cac } from "cac";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { explicitFlags } from "../../lib/cli/options.ts";
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

test("didYouMean() suggests only similar names", () => {
  assert.is(didYouMean("lst", ["list", "stop"]), 'Did you mean "list"? ');
  assert.is(didYouMean("--json", ["--help", "--yes"]), "");
  assert.is(didYouMean("x", []), "");
});

test.run();
