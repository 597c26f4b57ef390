// claudy doctor: checks the installation and suggests fixes.

import type { CAC } from "cac";
import { buildDigest } from "../std/build-digest.ts";
import { type Check, examine } from "../doctor/doctor.ts";
import { connectInstance } from "../instance/open.ts";
import { columns } from "../std/text.ts";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";

/** Labels of the states in the output. */
const signs = { ok: "ok", warn: "warn", fail: "FAIL" } as const;

export function doctorCommand(io: Io): CAC {
  const cli = command("claudy doctor");
  cli.command("", "Check the installation and suggest fixes")
    .option("--json", "Print it as JSON")
    .action((options: { json?: boolean }) => examineAll(io, options));
  return cli;
}

/** Runs and prints all checks; returns 1 if one fails. */
export async function examineAll(
  io: Io,
  { json }: { json?: boolean },
): Promise<number> {
  const checks = await examine(
    await connectInstance(io.env, io.log),
    io.env,
    await buildDigest(),
  );
  const text = columns(
    checks.map(({ name, state, says }: Check) => [signs[state], name, says]),
  );
  io.answer(checks, [text, ...fixesOf(checks)].join("\n"), json);
  return checks.some(({ state }) => state === "fail") ? 1 : 0;
}

/** A line for each command that fixes something, after the checks that need it. */
export function fixesOf(checks: Check[]): string[] {
  const byFix = Object.groupBy(checks, ({ mend }) => mend ?? "");
  return Object.entries(byFix).flatMap(([mend, of = []]) =>
    mend === "" ? [] : [`${of.map(({ name }) => name).join(", ")}: ${mend}`]
  );
}
