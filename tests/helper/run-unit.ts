// Runs the unit tests whose file names match a pattern: run-unit.ts [REGEX]. Unlike uvu's own
// program, it ends if a test has left something open.

import process from "node:process";
import { parse } from "uvu/parse";
import { run } from "uvu/run";

const { suites } = await parse("tests/unit", process.argv[2]);
await run(suites);

const leftMs = 15_000;
setTimeout(() => {
  console.error(
    `Ended ${leftMs / 1000} s after the last test: one has left something open`,
  );
  process.exit();
}, leftMs).unref();
