// claudy doctor: what is well, what is not, and what mends it.

import process from "node:process";
import type { CAC } from "cac";
import { buildDigest } from "../std/build-digest.ts";
import { checkout } from "../std/checkout.ts";
import { type Check, examine } from "../doctor/doctor.ts";
import { connectInstance } from "../instance/open.ts";
import { logToStderr } from "../std/log.ts";
import { columns } from "../std/text.ts";
import { answer } from "../cli/output.ts";

/** How the doctor marks what it found. */
const signs = { ok: "ok", warn: "warn", fail: "FAIL" } as const;

/** Adds claudy doctor. */
export function addDoctor(cli: CAC): void {
  cli.command("doctor", "Say what is well and what is not, and what mends it")
    .option("--json", "Print it as JSON")
    .action(examineAll);
}

/** Prints every check; gives 1 where one fails. */
export async function examineAll(
  { json }: { json?: boolean },
): Promise<number> {
  const checks = await examine(
    await connectInstance(process.env, logToStderr),
    process.env,
    buildDigest(checkout),
  );
  const text = columns(
    checks.map(({ name, state, says }: Check) => [signs[state], name, says]),
  );
  const mends = checks.flatMap(({ name, mend }) =>
    mend === undefined ? [] : [`${name}: ${mend}`]
  );
  answer(checks, [text, ...mends].join("\n"), json ?? false);
  return checks.some(({ state }) => state === "fail") ? 1 : 0;
}
