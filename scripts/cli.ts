// What every command shares: it reads argv, prints errors and sets the exit
// code, and is the only place that does.

import { dirname } from "node:path";
import process from "node:process";
import { type CAC, cac, type Command } from "cac";
import { closest } from "fastest-levenshtein";
import { connectionFault, engineFailure, statusOf } from "../lib/docker.ts";
import { exitCode, Failure, messageOf } from "../lib/errors.ts";
import manifest from "../package.json" with { type: "json" };

export const version = manifest.version;

/** The checkout that this script runs from. */
export const checkout = dirname(import.meta.dirname);

/** A command line with the options that every command has. */
export function command(name: string): CAC {
  const cli = cac(name);
  cli.option("--verbose", "Show what lies behind an error");
  cli.help();
  cli.version(version);
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
    cli.parse(process.argv, { run: false });
    if (cli.options["help"] || cli.options["version"]) return;
    refuseUnknownCommand(cli);
    await cli.runMatchedCommand();
  } catch (error) {
    const failure = asFailure(error, cli);
    process.stderr.write(`error: ${failure.message}\n`);
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

/** Rows as lines whose cells stand one below the other. */
export function columns(rows: string[][]): string {
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
    hint: `Did you mean "${closest(given, names)}"? See ${cli.name} --help.`,
  });
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
    return new Failure("usage", error.message.replaceAll("`", '"'), { hint });
  }
  const near = closest(unknown, optionNames(cli));
  return new Failure("usage", `Unknown option ${unknown}`, {
    hint: `Did you mean ${near}? ${hint}`,
  });
}

function optionNames(cli: CAC): string[] {
  const commands: Command[] = [cli.globalCommand];
  if (cli.matchedCommand) commands.push(cli.matchedCommand);
  return commands.flatMap((known) => known.options)
    .flatMap((option) => option.names)
    .map((name) => name.length === 1 ? `-${name}` : `--${kebab(name)}`);
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
