// Shared by all commands: parses argv, prints errors, and determines the exit code. No
// other code does this.

import process from "node:process";
import { type CAC, cac, type Command } from "cac";
import { buildDigest } from "../std/build-digest.ts";
import { exitCode, Failure, fileFailure, messageOf } from "../std/errors.ts";
import { didYouMean, nearest } from "../std/nearest.ts";
import { printable, wrapColumn } from "../std/text.ts";
import manifest from "../../package.json" with { type: "json" };
import type { Io } from "./io.ts";
import {
  dashed,
  explicitFlags,
  refuseEmpty,
  refuseRepeated,
  unmarkTexts,
} from "./options.ts";

export const version = manifest.version;

/** In the usage of commands that pass these arguments to the Claude CLI. */
export const claudeArguments = "[-- arguments of claude...]";

/** The entry point of a program or command: takes its arguments, returns the exit code. */
export type Main = (argv: string[], io?: Io) => Promise<number>;

/** Creates a command line with the options of every command. */
export function command(name: string): CAC {
  const cli = cac(name);
  cli.option("--verbose", "Show the stack trace of an error");
  cli.help((sections) =>
    sections.flatMap(({ title, body }) => {
      const named = cli.commands.some((known) => known.name !== "");
      if (title === "Commands" && !named) return [];
      if (title?.startsWith("For more info")) {
        return named
          ? [{ body: `See ${name} COMMAND --help for what each takes.` }]
          : [];
      }
      return [{
        ...(title === undefined ? {} : { title }),
        // cac prints a useless "(default: true)" for --no-x.
        body: body.replace(/^(\s+--no-.*) \(default: true\)$/gm, "$1"),
      }];
    })
  );
  cli.version(version);
  // cac's version line includes the Node version, which Deno only emulates; see runCli().
  cli.outputVersion = () => {};
  return cli;
}

/**
 * Runs the command in argv; returns its exit code. `rescue` may act upon an error in its
 * place.
 */
export async function runCli(
  cli: CAC,
  argv: string[],
  io: Io,
  rescue?: (error: unknown) => Promise<number | undefined>,
): Promise<number> {
  try {
    return await parseAndRun(cli, argv, io).catch(async (error) => {
      const code = await rescue?.(error);
      if (code === undefined) throw error;
      return code;
    });
  } catch (error) {
    return await reportError(error, cli, argv, io);
  }
}

async function parseAndRun(
  cli: CAC,
  argv: string[],
  io: Io,
): Promise<number> {
  refuseEmpty(argv);
  const asked = argv[0] === "help" ? [...argv.slice(1), "--help"] : argv;
  if (asked.some((word) => word === "--help" || word === "-h")) {
    await showEffectiveDefaults(cli, io.env);
    wrapHelp(cli, io.width);
  }
  // cac expects the interpreter and the script first.
  const words = ["", "", ...explicitFlags(asked, cli)];
  cli.parse(words, { run: false });
  unmarkTexts(cli);
  if (cli.options["help"]) return 0;
  if (cli.options["version"]) {
    const build = await buildDigest();
    io.answer(null, `${cli.name} ${version} (build ${build})`);
    return 0;
  }
  refuseUnknownCommand(cli);
  refuseRepeated(cli);
  const code: unknown = await cli.runMatchedCommand();
  return typeof code === "number" ? code : 0;
}

async function reportError(
  error: unknown,
  cli: CAC,
  argv: string[],
  io: Io,
): Promise<number> {
  const failure = await asFailure(error, cli);
  io.holdProgress();
  const message = shortened(failure.message);
  io.stderr.write(`error: ${printable(message)}\n`);
  const hint = failure.hint ??
    (failure.kind === "usage" ? `See ${cli.name} --help.` : undefined);
  if (hint) io.log(hint);
  if (argv.includes("--verbose")) io.log(stackOf(error));
  return failure.exitCode;
}

/** Characters of an error: it may contain what a program in a worker printed. */
const maxMessage = 4000;

/** Without the middle, as the reason is often at the end. */
function shortened(text: string): string {
  if (text.length <= maxMessage) return text;
  return `${text.slice(0, maxMessage / 2)}…${text.slice(-maxMessage / 2)}`;
}

/**
 * Makes help texts show current values: "(default: WORKER_MEMORY)" becomes "(default:
 * WORKER_MEMORY=4g)". "(default: WORKER_IMAGE, else X)" stays if the value is empty.
 */
async function showEffectiveDefaults(
  { globalCommand }: CAC,
  env: NodeJS.ProcessEnv,
): Promise<void> {
  // Loaded lazily: other commands would take a third longer to start.
  const { shownSettings } = await import("../instance/config.ts");
  const settings = shownSettings(env);
  const { helpCallback } = globalCommand;
  globalCommand.helpCallback = (sections) => {
    const shown = helpCallback?.(sections) ?? sections;
    return shown.map((section) => ({
      ...section,
      body: section.body.replace(
        /\(default: ([A-Z0-9_]+)(, else [^)]+)?\)/g,
        (text, key) => {
          const value = settings.get(key);
          return value ? `(default: ${key}=${value})` : text;
        },
      ),
    }));
  };
}

/** Makes help texts break between words, with descriptions in their column. */
function wrapHelp({ globalCommand }: CAC, width = Infinity): void {
  const { helpCallback } = globalCommand;
  globalCommand.helpCallback = (sections) => {
    const shown = helpCallback?.(sections) ?? sections;
    return shown.map((section) => ({
      ...section,
      body: section.body.split("\n").map((line) => wrapColumn(line, width))
        .join("\n"),
    }));
  };
}

/** Runs a program's main with the arguments of this process, and sets the exit code. */
export async function execute(main: Main): Promise<void> {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    // A closed pipe, as in `coordinator list | head -1`, is not an error.
    if (error.code === "EPIPE") process.exit(0);
    throw error;
  });
  process.on("SIGINT", () => process.exit(exitCode.interrupted));
  process.exitCode = await main(process.argv.slice(2));
}

function refuseUnknownCommand(cli: CAC): void {
  const { matchedCommand: matched, matchedCommandName: name } = cli;
  // If the default command takes no arguments, the first word is an unknown command.
  const meant = matched &&
    (name !== undefined || matched.args.length > 0 || cli.args.length === 0);
  if (meant) return;
  const names = cli.commands.map((known) => known.name).filter(Boolean);
  if (matched && names.length === 0) return;
  const [program, noun] = cli.name.split(" ");
  const what = noun === undefined ? "command" : "action";
  const of = noun === undefined ? "" : ` of ${noun}`;
  const [given] = cli.args;
  if (given === undefined) {
    throw new Failure("usage", `No ${what}${of} was given`, {
      hint: `Available: ${names.join(", ")}. See ${cli.name} --help.`,
    });
  }
  throw new Failure("usage", `Unknown ${what} "${given}"${of}`, {
    hint: `${didYouMean(given, names)}${
      noun === undefined
        ? `See ${program} --help.`
        : `Available: ${names.join(", ")}.`
    }`,
  });
}

async function asFailure(error: unknown, cli: CAC): Promise<Failure> {
  if (error instanceof Failure) return error;
  const file = fileFailure(error);
  if (file) return file;
  if (error instanceof Error && error.name === "CACError") {
    return usageFailure(error, cli);
  }
  // Loaded lazily: few commands fail this way.
  const { connectionFault, engineFailure, statusOf } = await import(
    "../docker/docker-errors.ts"
  );
  if (connectionFault(error) !== undefined || statusOf(error) !== undefined) {
    return engineFailure(error, `Cannot run ${cli.name}`);
  }
  return new Failure("failed", messageOf(error), {
    hint: "Run it again with --verbose to see where it failed.",
  });
}

function usageFailure(error: Error, cli: CAC): Failure {
  const option = /^Unknown option `-+(.+)`$/.exec(error.message)?.[1];
  const hint = `See ${cli.name} --help.`;
  if (option === undefined) {
    const sentence = error.message
      .replace(/^missing required args for command/, "Missing arguments:")
      .replace(/^Unused args:/, "Unexpected arguments:")
      .replace(/^option (`.*`) value is missing$/, "Option $1 needs a value")
      .replaceAll("`", '"');
    return new Failure("usage", sentence, { hint });
  }
  const unknown = dashed(option);
  const meant = similarOption(unknown, optionNames(cli));
  const passesOn = cli.matchedCommand?.usageText?.includes(claudeArguments);
  const where = passesOn ? "Put options of the Claude CLI after --. " : "";
  return new Failure("usage", `Unknown option ${unknown}`, {
    hint: (meant === undefined ? where : `Did you mean "${meant}"? `) + hint,
  });
}

/** Letters are similar only in their case. */
function similarOption(unknown: string, names: string[]): string | undefined {
  if (unknown.startsWith("--")) return nearest(unknown, names);
  return names.find((name) => name.toLowerCase() === unknown.toLowerCase());
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
