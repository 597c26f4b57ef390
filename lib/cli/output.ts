// What commands print, and what they ask.

import process from "node:process";
import { Failure } from "../std/errors.ts";
import { displayed } from "../std/terminal-filter.ts";
import { printableLines } from "../std/text.ts";

/**
 * Prints an answer on stdout: JSON when it was asked for, else its text. A terminal
 * obeys nothing in it but colours; elsewhere it stays as it is.
 */
export function answer(value: unknown, text: string, json: boolean): void {
  const line = json ? jsonText(value, 2) : text;
  if (line !== "") print(line);
}

/** The same value, though a terminal is given no character that it would obey. */
function jsonText(value: unknown, indent?: number): string {
  const text = JSON.stringify(value, null, indent) ?? "";
  if (!process.stdout.isTTY) return text;
  return text.replace(
    /[\x7f-\x9f\p{Cf}\u2028\u2029]/gu,
    (character) =>
      [...Array(character.length).keys()].map((at) =>
        `\\u${character.charCodeAt(at).toString(16).padStart(4, "0")}`
      ).join(""),
  );
}

function print(line: string): void {
  const shown = process.stdout.isTTY ? displayed(line) : line;
  process.stdout.write(`${shown}\n`);
}

/** One of several answers, each on a line of its own. */
export function answerLine(
  value: unknown,
  text: string,
  json: boolean | undefined,
): void {
  print(json ? jsonText(value) : text);
}

/** A line that is not shown while it is typed; from stdin where it is no terminal. */
export async function askHidden(question: string): Promise<string> {
  const { stdin, stderr } = process;
  stdin.setEncoding("utf8");
  let text = "";
  if (stdin.isTTY !== true) {
    for await (const chunk of stdin) text += chunk;
    return text.trim();
  }
  // Before the question: who answers at once is not shown either.
  stdin.setRawMode(true);
  try {
    stderr.write(`${question} (it is not shown): `);
    for await (const chunk of stdin) {
      for (const character of chunk as string) {
        if (character === "\r" || character === "\n") return text.trim();
        if (character === "\x03" || character === "\x04") {
          throw new Failure("unsafe", "Nothing was done");
        }
        text = character === "\x7f" ? text.slice(0, -1) : text + character;
      }
    }
    return text.trim();
  } finally {
    stdin.setRawMode(false);
    stderr.write("\n");
  }
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
  if (await isConfirmed(question)) return;
  throw new Failure("unsafe", "Nothing was done");
}

/** Whether a person at the terminal says yes. */
export async function isConfirmed(question: string): Promise<boolean> {
  return /^y(es)?$/i.test(await ask(`${question} [y/N] `));
}

/** Has one of several chosen at the terminal; gives its place among them. */
export async function choose(
  question: string,
  choices: string[],
): Promise<number> {
  const lines = choices.map((choice, index) => `  ${index + 1}  ${choice}`);
  process.stderr.write(`${printableLines([question, ...lines].join("\n"))}\n`);
  const reply = await ask(`1 to ${choices.length}, nothing to leave: `);
  const chosen = /^\d$/.test(reply) ? Number(reply) - 1 : -1;
  if (chosen in choices) return chosen;
  throw new Failure("unsafe", "Nothing was done");
}

async function ask(question: string): Promise<string> {
  const { createInterface } = await import("node:readline/promises");
  const terminal = createInterface({
    input: process.stdin,
    output: process.stderr,
  });
  try {
    const left = new Promise<never>((_, reject) => {
      // It takes both keys for itself.
      const leave = () => reject(new Failure("unsafe", "Nothing was done"));
      terminal.on("SIGINT", leave).on("close", leave);
    });
    return (await Promise.race([
      terminal.question(printableLines(question)),
      left,
    ])).trim();
  } finally {
    terminal.close();
  }
}
