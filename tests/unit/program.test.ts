// Programs that are run without a shell.

import { execFileSync, spawnSync } from "node:child_process";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { checkout } from "../../lib/std/checkout.ts";
import { runProgram } from "../../lib/std/program.ts";
import { waitFor } from "../../lib/std/wait.ts";

const test = suite("program");

/** Whether a process runs; a zombie does not. */
const runs = (pid: number) =>
  /^[^Z]/.test(
    spawnSync("ps", ["-o", "stat=", "-p", `${pid}`], { encoding: "utf8" })
      .stdout,
  );

test("kills a program that takes too long, with those that it has started", async () => {
  const begun = Date.now();
  const { exitCode, stdout } = await runProgram(
    ["sh", "-c", "sleep 20 & echo $!; wait"],
    { timeoutMs: 300 },
  );
  assert.is(exitCode, null);
  assert.ok(Date.now() - begun < 10_000);
  const isOver = () => !runs(Number(stdout));
  await waitFor(isOver, { for: "the end of sleep", timeoutMs: 2000 });
});

test("a program with a time limit ends with this one", async () => {
  const text = execFileSync(process.execPath, [
    "eval",
    "--no-lock",
    `
    import process from "node:process";
    import { runProgram } from "${checkout}/lib/std/program.ts";
    runProgram(["sleep", "20"], {
      timeoutMs: 20_000,
      started: (pid) => {
        console.log(pid);
        setTimeout(() => process.exit(), 50);
      },
    });`,
  ], { encoding: "utf8" });
  const isOver = () => !runs(Number(text));
  await waitFor(isOver, { for: "the end of sleep", timeoutMs: 2000 });
});

test.run();
