// Options as commands take them from cac.

import type { CAC } from "cac";
import type { Flags } from "../instance/config.ts";
import { Failure } from "../std/errors.ts";
import type { SettingName } from "../instance/settings.ts";
import type { Io } from "./io.ts";

/**
 * argv with `--allow-any-path` as `--allowAnyPath=true`. cac takes what follows a
 * flag for its value where the flag's name has a dash, and a directory that
 * follows `-d` for a number where it looks like one.
 */
export function explicitFlags(argv: readonly string[], cli: CAC): string[] {
  const flags = new Map<string, string>();
  // What is a flag of one command may take a value in another.
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
    const flag = end === -1 || index < end ? flags.get(word) : undefined;
    return flag === undefined ? word : `${flag}=true`;
  });
}

/** The values of an option that may be given more than once. */
export function listOf(value: unknown): string[] {
  // cac gives [undefined] for a repeatable option that was not given.
  const values = Array.isArray(value) ? value : [value];
  return values.filter((item) => item !== undefined).map(String);
}

/** Options that stand for settings, as flags that name themselves. */
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
  // An option is a number already where it looks like one; an argument never is.
  const number = /^\d+$/.test(String(value)) ? Number(value) : NaN;
  if (Number.isSafeInteger(number)) return number;
  throw new Failure(
    "usage",
    `${option} must be a whole number, got "${value}"`,
  );
}

/** For what is shown at a terminal, or not at all. */
export function refuseWithoutTerminal(io: Io, hint: string): void {
  if (io.isInteractive) return;
  throw new Failure("usage", "Cannot attach: stdin is no terminal", { hint });
}

/** cac takes "" for a number, for no argument, or for the default command. */
export function refuseEmpty(argv: readonly string[]): void {
  const end = argv.indexOf("--");
  const words = end === -1 ? argv : argv.slice(0, end);
  if (!words.includes("")) return;
  throw new Failure("usage", "An argument is empty", {
    hint: "Leave it out or pass a value.",
  });
}

/** cac makes a list of an option that is given twice; few are lists. */
export function refuseRepeated(cli: CAC): void {
  for (const option of cli.matchedCommand?.options ?? []) {
    const value = cli.options[option.name];
    if (Array.isArray(value) && !Array.isArray(option.config.type)) {
      throw new Failure(
        "usage",
        `Option --${kebab(option.name)} was given ${value.length} times`,
      );
    }
  }
}

/** An option as people write it. */
export function dashed(name: string): string {
  return name.length === 1 ? `-${name}` : `--${kebab(name)}`;
}

function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
