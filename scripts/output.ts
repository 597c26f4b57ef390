// What commands print, and what they ask.

import process from "node:process";
import { Failure } from "../lib/errors.ts";

/** Prints an answer on stdout: JSON when it was asked for, else its text. */
export function answer(value: unknown, text: string, json: boolean): void {
  const line = json ? JSON.stringify(value, null, 2) : text;
  if (line !== "") process.stdout.write(`${line}\n`);
}

/** Rows as lines whose cells stand one below the other. */
export function columns(cells: string[][]): string {
  const rows = cells.map((row) => row.map(printable));
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0))
  );
  return rows
    .map((row) =>
      row.map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ").trimEnd()
    )
    .join("\n");
}

/** Text that a terminal shows and does not obey: names are anybody's choice. */
export function printable(text: string): string {
  return text.replace(
    /\p{Cc}/gu,
    (character) =>
      `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`,
  );
}

/** Asks at the terminal; throws an `unsafe` Failure where nobody says yes. */
export async function confirm(question: string, yes: boolean): Promise<void> {
  if (yes) return;
  if (process.stdin.isTTY !== true) {
    throw new Failure(
      "unsafe",
      `Refused, for nobody can be asked: ${question}`,
      {
        hint: "Say --yes.",
      },
    );
  }
  const { createInterface } = await import("node:readline/promises");
  const terminal = createInterface({
    input: process.stdin,
    output: process.stderr,
  });
  const reply = await terminal.question(`${question} [y/N] `);
  terminal.close();
  if (!/^y(es)?$/i.test(reply.trim())) {
    throw new Failure("unsafe", "Nothing was done");
  }
}
