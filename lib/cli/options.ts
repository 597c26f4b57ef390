// Helpers for options parsed by cac.

import type { CAC } from "cac";
import type { Flags } from "../instance/config.ts";
import { Failure } from "../std/errors.ts";
import type { SettingName } from "../instance/settings.ts";
import type { Io } from "./io.ts";

/**
 * Rewrites `--allow-any-path` to `--allowAnyPath=true`. Otherwise cac takes the word after
 * a flag as its value if the flag's name contains a dash, and takes a directory after `-d`
 * as a number if it looks like one.
 */
export function explicitFlags(argv: readonly string[], cli: CAC): string[] {
  const flags = new Map<string, string>();
  // A flag of one command may take a value in another.
  const named = cli.commands.filter(({ name }) => name === argv[0]);
  const chosen = named.length > 0
    ? named
    : cli.commands.filter(({ isDefaultCommand }) => isDefaultCommand);
  for (const { options } of [cli.globalCommand, ...chosen]) {
    for (const { names, isBoolean, negated } of options) {
      if (!isBoolean || negated) continue;
      for (const name of names) {
        flags.set(dashed(name), name.length === 1 ? `-${name}` : `--${name}`);
      }
    }
  }
  const end = argv.indexOf("--");
  return argv.map((word, index) => {
    if (end !== -1 && index >= end) return word;
    if (isText(word)) return textMark + word;
    const flag = flags.get(word);
    return flag === undefined ? word : `${flag}=true`;
  });
}

/** A text such as "- item" is no option, but cac takes any word with a dash for one. */
const isText = (word: string) => word === "-" || /^-[^\s=]*\s/.test(word);

/** Hides the dash of a text from cac; no argument of a program contains it. */
const textMark = "\0";

/** Removes the mark from the arguments. */
export function unmarkTexts(cli: CAC): void {
  const args = cli.args.map((word) =>
    word.startsWith(textMark) ? word.slice(textMark.length) : word
  );
  Object.assign(cli, { args });
}

/** The values of an option that may be given more than once. */
export function listOf(value: unknown): string[] {
  // cac returns [undefined] for a repeatable option that was not given.
  const values = Array.isArray(value) ? value : [value];
  return values.filter((item) => item !== undefined).map(String);
}

/** The options that override settings, with the flag's name as the source. */
export function flagsOf(
  options: Record<string, unknown>,
  names: Record<string, SettingName>,
): Flags {
  const flags: Flags = {};
  for (const [option, setting] of Object.entries(names)) {
    const value = options[option];
    if (value === undefined) continue;
    flags[setting] = { text: String(value), place: `--${kebab(option)}` };
  }
  return flags;
}

/** The value of an option that must be a whole number. */
export function wholeNumber(
  option: string,
  value: unknown,
): number | undefined {
  if (value === undefined) return undefined;
  // cac parses options that look like numbers, but not arguments.
  const number = /^\d+$/.test(String(value)) ? Number(value) : NaN;
  if (Number.isSafeInteger(number)) return number;
  throw new Failure(
    "usage",
    `${option} must be a whole number, got "${value}"`,
  );
}

/** Throws a `usage` Failure if stdin is not a terminal. */
export function refuseWithoutTerminal(
  io: Io,
  hint: string,
  what = "Cannot attach",
): void {
  if (io.isInteractive) return;
  throw new Failure("usage", `${what}: stdin is not a terminal`, { hint });
}

/** Asks on a terminal whether an engine may be installed; without one, it may. */
export function engineConsent(io: Io): (question: string) => Promise<void> {
  return async (question) => {
    if (!io.isInteractive) return;
    if (await io.isConfirmed(question, { byDefault: true })) return;
    throw new Failure("unsafe", "No engine was installed", {
      hint:
        "Install Docker 20.10 or later: https://docs.docker.com/engine/install/",
    });
  };
}

/** cac takes "" as a number, as a missing argument, or as the default command. */
export function refuseEmpty(argv: readonly string[]): void {
  const end = argv.indexOf("--");
  const words = end === -1 ? argv : argv.slice(0, end);
  if (!words.includes("")) return;
  throw new Failure("usage", "An argument is empty", {
    hint: "Leave it out or pass a value.",
  });
}

/** cac turns a repeated option into a list, but most options are not lists. */
export function refuseRepeated(cli: CAC): void {
  for (const option of cli.matchedCommand?.options ?? []) {
    const value = cli.options[option.name];
    if (Array.isArray(value) && !Array.isArray(option.config.type)) {
      throw new Failure(
        "usage",
        `Option --${kebab(option.name)} was given ${value.length} times`,
        { hint: "Pass it once." },
      );
    }
  }
}

/** An option as it is typed. */
export function dashed(name: string): string {
  return name.length === 1 ? `-${name}` : `--${kebab(name)}`;
}

function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
