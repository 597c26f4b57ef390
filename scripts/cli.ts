// What every command shares: it reads argv, prints errors and sets the exit
// code, and is the only place that does.

import { dirname } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline/promises";
import { type CAC, cac, type Command } from "cac";
import { connectionFault, engineFailure, statusOf } from "../lib/docker.ts";
import type { Flags } from "../lib/config.ts";
import type { SettingName } from "../lib/settings.ts";
import { didYouMean } from "../lib/nearest.ts";
import { exitCode, Failure, messageOf } from "../lib/errors.ts";
import manifest from "../package.json" with { type: "json" };

export const version = manifest.version;

/** The checkout that this script runs from. */
export const checkout = dirname(import.meta.dirname);

/** A command line with the options that every command has. */
export function command(name: string): CAC {
  const cli = cac(name);
  cli.option("--verbose", "Show what lies behind an error");
  cli.help((sections) =>
    sections.map(({ title, body }) => ({
      ...(title === undefined ? {} : { title }),
      // cac tells of --no-x that x is true by default.
      body: body.replace(/^(\s+--no-.*) \(default: true\)$/gm, "$1"),
    }))
  );
  cli.version(version);
  // cac's own line names a Node version that Deno only pretends to be.
  cli.outputVersion = () => process.stdout.write(`${name} ${version}\n`);
  return cli;
}

/** Runs the command that argv names, and ends the process as it ended. */
export async function runCli(cli: CAC): Promise<void> {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    // A reader that has gone, as in `coordinator list | head -1`, is no fault.
    if (error.code === "EPIPE") process.exit(0);
    throw error;
  });
  process.on("SIGINT", () => process.exit(exitCode.interrupted));
  try {
    refuseEmpty(process.argv);
    cli.parse(explicitFlags(process.argv, cli), { run: false });
    if (cli.options["help"] || cli.options["version"]) return;
    refuseUnknownCommand(cli);
    refuseRepeated(cli);
    const code: unknown = await cli.runMatchedCommand();
    if (typeof code === "number") process.exitCode = code;
  } catch (error) {
    const failure = asFailure(error, cli);
    process.stderr.write(`error: ${printable(failure.message)}\n`);
    if (failure.hint) process.stderr.write(`${failure.hint}\n`);
    if (process.argv.includes("--verbose")) {
      process.stderr.write(`${stackOf(error)}\n`);
    }
    process.exitCode = failure.exitCode;
  }
}

/** Prints an answer on stdout: JSON when it was asked for, else its text. */
export function answer(value: unknown, text: string, json: boolean): void {
  const line = json ? JSON.stringify(value, null, 2) : text;
  if (line !== "") process.stdout.write(`${line}\n`);
}

/**
 * argv with `--allow-any-path` as `--allowAnyPath=true`. cac takes what follows a
 * flag for its value where the flag's name has a dash, and a directory that
 * follows `-d` for a number where it looks like one.
 */
export function explicitFlags(argv: readonly string[], cli: CAC): string[] {
  const flags = new Map<string, string>();
  for (const { options } of [cli.globalCommand, ...cli.commands]) {
    for (const { names, isBoolean, negated } of options) {
      if (!isBoolean || negated) continue;
      for (const name of names) {
        flags.set(dashed(name), `${dashes(name)}${name}`);
      }
    }
  }
  const end = argv.indexOf("--");
  return argv.map((word, index) => {
    const flag = end === -1 || index < end ? flags.get(word) : undefined;
    return flag === undefined ? word : `${flag}=true`;
  });
}

/** The action of a command by its name. */
export function action<T>(
  command: string,
  actions: Record<string, T>,
  name: string,
): T {
  const found = Object.hasOwn(actions, name) ? actions[name] : undefined;
  if (found !== undefined) return found;
  const names = Object.keys(actions);
  throw new Failure("usage", `Unknown action "${name}" of ${command}`, {
    hint: `${didYouMean(name, names)}There are: ${names.join(", ")}.`,
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
  if (typeof value === "number" && Number.isInteger(value) && value >= 0) {
    return value;
  }
  throw new Failure(
    "usage",
    `${option} must be a whole number, got "${value}"`,
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

/** Text that a terminal shows and does not obey: names are anybody's choice. */
function printable(text: string): string {
  return text.replace(
    /\p{Cc}/gu,
    (character) =>
      `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`,
  );
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

function refuseUnknownCommand(cli: CAC): void {
  if (cli.matchedCommand) return;
  const names = cli.commands.map((known) => known.name);
  const [given] = cli.args;
  if (given === undefined) {
    throw new Failure("usage", "No command was given", {
      hint: `Commands: ${names.join(", ")}. See ${cli.name} --help.`,
    });
  }
  throw new Failure("usage", `Unknown command "${given}"`, {
    hint: `${didYouMean(given, names)}See ${cli.name} --help.`,
  });
}

/** cac takes "" for a number, for no argument, or for the default command. */
function refuseEmpty(argv: readonly string[]): void {
  const end = argv.indexOf("--");
  const words = end === -1 ? argv : argv.slice(0, end);
  if (!words.includes("")) return;
  throw new Failure("usage", "An argument is empty", {
    hint: "Leave it out, or give it a value.",
  });
}

/** cac makes a list of an option that is given twice; few are lists. */
function refuseRepeated(cli: CAC): void {
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

function asFailure(error: unknown, cli: CAC): Failure {
  if (error instanceof Failure) return error;
  if (error instanceof Error && error.name === "CACError") {
    return usageFailure(error, cli);
  }
  if (connectionFault(error) !== undefined || statusOf(error) !== undefined) {
    return engineFailure(error, `Cannot run ${cli.name}`);
  }
  return new Failure("failed", messageOf(error), {
    hint: "Run it again with --verbose to see where it failed.",
  });
}

function usageFailure(error: Error, cli: CAC): Failure {
  const unknown = /^Unknown option `(.+)`$/.exec(error.message)?.[1];
  const hint = `See ${cli.name} --help.`;
  if (!unknown) {
    const sentence = error.message
      .replace(/^missing required args for command/, "Arguments are missing:")
      .replaceAll("`", '"');
    return new Failure("usage", sentence, { hint });
  }
  return new Failure("usage", `Unknown option ${unknown}`, {
    hint: didYouMean(unknown, optionNames(cli)) + hint,
  });
}

function optionNames(cli: CAC): string[] {
  const commands: Command[] = [cli.globalCommand];
  if (cli.matchedCommand) commands.push(cli.matchedCommand);
  return commands.flatMap((known) => known.options)
    .flatMap((option) => option.names)
    .map(dashed);
}

/** An option as people write it. */
function dashed(name: string): string {
  return dashes(name) + kebab(name);
}

function dashes(name: string): string {
  return name.length === 1 ? "-" : "--";
}

function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined
    ? ""
    : `\ncaused by ${stackOf(error.cause)}`;
  return `${error.stack}${cause}`;
}
