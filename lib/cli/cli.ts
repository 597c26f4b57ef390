// What every command shares: it reads argv, prints errors and sets the exit
// code, and is the only place that does.

import process from "node:process";
import { type CAC, cac, type Command } from "cac";
import {
  connectionFault,
  engineFailure,
  statusOf,
} from "../docker/docker-errors.ts";
import { buildDigest } from "../std/build-digest.ts";
import { checkout } from "../std/checkout.ts";
import { didYouMean } from "../std/nearest.ts";
import { exitCode, Failure, fileFailure, messageOf } from "../std/errors.ts";
import { logToStderr } from "../std/log.ts";
import { printable } from "../std/text.ts";
import manifest from "../../package.json" with { type: "json" };
import {
  dashed,
  explicitFlags,
  refuseEmpty,
  refuseRepeated,
} from "./options.ts";

export const version = manifest.version;

/** Titles with the commands below them, in the order in which help shows them. */
export type Groups = [title: string, names: string[]][];

/** A command line with the options that every command has. */
export function command(name: string, groups?: Groups): CAC {
  const cli = cac(name);
  cli.option("--verbose", "Show what lies behind an error");
  cli.help((sections) =>
    sections.flatMap(({ title, body }) => {
      if (groups && title === "Commands") return grouped(cli, groups);
      if (groups && title?.startsWith("For more info")) {
        return [{ body: `See ${name} COMMAND --help for what each takes.` }];
      }
      return [{
        ...(title === undefined ? {} : { title }),
        // cac tells of --no-x that x is true by default.
        body: body.replace(/^(\s+--no-.*) \(default: true\)$/gm, "$1"),
      }];
    })
  );
  cli.version(version);
  // cac's own line names a Node version that Deno only pretends to be.
  cli.outputVersion = () => {
    const build = buildDigest(checkout);
    process.stdout.write(`${name} ${version} (build ${build})\n`);
  };
  return cli;
}

function grouped(cli: CAC, groups: Groups): { title: string; body: string }[] {
  const width = Math.max(...cli.commands.map(({ rawName }) => rawName.length));
  return groups.map(([title, names]) => ({
    title,
    body: cli.commands.filter((known) => names.includes(known.name))
      .map(({ rawName, description }) =>
        `  ${rawName.padEnd(width)}  ${description}`
      )
      .join("\n"),
  }));
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
    if (failure.hint) logToStderr(failure.hint);
    if (process.argv.includes("--verbose")) {
      logToStderr(stackOf(error));
    }
    process.exitCode = failure.exitCode;
  }
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

function asFailure(error: unknown, cli: CAC): Failure {
  if (error instanceof Failure) return error;
  const file = fileFailure(error);
  if (file) return file;
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

function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined
    ? ""
    : `\ncaused by ${stackOf(error.cause)}`;
  return `${error.stack}${cause}`;
}
