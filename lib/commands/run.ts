// claudy run: runs one prompt in a new worker and prints Claude's answer.

import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { CAC } from "cac";
import { inspectContainer } from "../docker/docker.ts";
import { stopWorker } from "../worker/ending.ts";
import { Failure, fileFailure } from "../std/errors.ts";
import { inheritRequest } from "../home/host-config.ts";
import { inheritForRun } from "../home/inherit.ts";
import { projectImage } from "../image/profiles.ts";
import { openInstance } from "../instance/open.ts";
import { flagsOf } from "../cli/options.ts";
import {
  checkChoice,
  chosenServers,
  configuredServers,
  offerServers,
  warnAboutUnavailable,
} from "../mcp/offer.ts";
import { resolveProject } from "../project/project.ts";
import { judgeProjectConfig } from "../project/config-approval.ts";
import { readRecord } from "../instance/record.ts";
import {
  type ClaudeStart,
  prepareStart,
  relayUseFor,
  type StartOptions,
} from "../session/start.ts";
import { workerEnvironment } from "../session/local-gateway.ts";
import {
  eventArguments,
  type OutputFormat,
  outputFormats,
} from "../session/answer.ts";
import {
  modeArguments,
  type PermissionMode,
  startMode,
} from "../instance/permission-mode.ts";
import { checkPrompt } from "../session/send.ts";
import type { Servers } from "../mcp/config.ts";
import type { Instance } from "../instance/instance.ts";
import type { WorkerState } from "../worker/workers.ts";
import { claimOrSpawn } from "../session/worker.ts";
import { ensureHome } from "../instance/volumes.ts";
import { offerDaemon } from "./daemon.ts";
import { seedState } from "../home/worker-home.ts";
import { claudeArguments, command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import { ask, type Asked } from "./ask.ts";
import { approveConfig, askDevcontainer, repositoryConsent } from "./trust.ts";
import {
  addCopyOptions,
  addMcpChoice,
  addPermissionOptions,
  addProfileOptions,
  cachesOption,
  copyChoice,
  type CopyOptions,
  limitsOption,
  type McpChoice,
  mcpChoice,
  networkOption,
  permissionChoice,
  type PermissionOptions,
  profileChoice,
  type ProfileOptions,
  startSettings,
  trustOption,
  unguardedOption,
  worktreeOption,
} from "./start-options.ts";

interface RunOptions
  extends ProfileOptions, McpChoice, PermissionOptions, CopyOptions {
  project?: string;
  name?: unknown;
  keep?: boolean;
  file?: unknown;
  requireLimits?: boolean;
  unguarded?: boolean;
  network?: unknown;
  caches?: unknown;
  trustProject?: boolean;
  allowWorktree?: boolean;
  yes?: boolean;
  json?: boolean;
  outputFormat?: unknown;
}

export function runCommand(io: Io): CAC {
  const cli = command("claudy run");
  const running = cli.command(
    "[...prompt]",
    "Run one prompt in a new worker and print the answer",
  );
  addCopyOptions(
    addPermissionOptions(
      addMcpChoice(addProfileOptions(running, "auto")),
      "PERMISSION_MODES, else Claude's own",
    ),
    "Work in a new copy of the project, and fetch what was changed in it",
  )
    .usage(`[options] [...prompt] ${claudeArguments}`)
    .option("-p", "No effect (this is the default)")
    .option(
      "-f, --file <file>",
      "Read the prompt from a file, or with - from stdin",
    )
    .option("-C, --project <dir>", "The project (default: here)")
    .option(
      "-n, --name <name>",
      "With --clone: name of the session (default: a new one)",
    )
    .option("--keep", "With --clone: keep the session, to attach to it")
    .option(...limitsOption)
    .option(...networkOption)
    .option(...cachesOption)
    .option(...trustOption)
    .option("--allow-worktree", worktreeOption)
    .option(...unguardedOption)
    .option("--yes", "Start the daemon without asking")
    .option(
      "--output-format <format>",
      "text, json (the answer with its cost), or stream-json (all events) (default: text)",
    )
    .option("--json", "Same as --output-format json")
    .example('claudy run "explain this project"')
    .example("git diff | claudy run review this change")
    .action(async (words: string[], options: RunOptions) => {
      const asked = {
        format: outputFormat(options),
        mode: permissionChoice(options),
        prompt: await promptOf(io, words, options.file),
      };
      refuseWithoutCopy(options);
      if (!options.clone) return await runPrompt(io, asked, options);
      const { runInCopy } = await import("./run-copy.ts");
      return await runInCopy(io, asked, options);
    });
  return cli;
}

function refuseWithoutCopy(options: RunOptions): void {
  const { name, keep } = options;
  if (copyChoice(options) || name === undefined && !keep) return;
  throw new Failure("usage", "--name and --keep need --clone", {
    hint: "Without --clone, the worker has no session.",
  });
}

/** Undefined if the user's arguments for Claude choose it. */
export function outputFormat(options: RunOptions): OutputFormat | undefined {
  const { json, outputFormat: given, "--": rest = [] } = options;
  const own = rest.some((word) => /^--(output|input)-format(=|$)/.test(word));
  const asked = given ?? (json ? "json" : undefined);
  const format = outputFormats.find((known) => known === (asked ?? "text"));
  if (!format) {
    throw new Failure(
      "usage",
      `--output-format must be one of ${
        outputFormats.join(", ")
      }, got "${asked}"`,
    );
  }
  if (asked !== undefined && own || json && format !== "json") {
    throw new Failure("usage", "The output format was given twice", {
      hint: "Pass --output-format or --json once.",
    });
  }
  return own ? undefined : format;
}

/** The prompt from the words, the file or stdin. */
export async function promptOf(
  io: Io,
  words: string[],
  file: unknown,
): Promise<string> {
  if (words.length > 0 && file !== undefined) {
    throw new Failure("usage", "--file and a prompt exclude each other", {
      hint: "Pass one of them.",
    });
  }
  // With other words, Claude itself reads stdin, as what they are about.
  const fromStdin = file === "-" || words.length === 0 && file === undefined ||
    words.length === 1 && words[0] === "-";
  const text = fromStdin
    ? await io.readInput()
    : file === undefined
    ? words.join(" ")
    : await readPrompt(resolve(io.cwd(), String(file)));
  checkPrompt(text);
  if (text.trim() !== "") return text;
  throw new Failure("usage", "There is no prompt", {
    hint:
      'Pass it as an argument, on stdin or with --file: claudy run "explain this"',
  });
}

async function readPrompt(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    const { kind, message } = fileFailure(error) ?? {};
    if (!kind || !message) throw error;
    const hint = "Check the path of --file.";
    throw new Failure(kind, message, { cause: error, hint });
  }
}

/** Runs `claude -p` in a worker that is stopped afterwards; returns the exit code. */
async function runPrompt(
  io: Io,
  { prompt, format, mode }: Asked & { mode: PermissionMode | undefined },
  options: RunOptions,
): Promise<number> {
  const flags = flagsOf({ ...options }, startSettings);
  const instance = await openInstance(io.env, io.log, flags);
  const env = await workerEnvironment(instance, io.env);
  await offerDaemon(io, instance, options.yes);
  ensureHome(instance);
  const project = await resolveProject(instance, {
    path: options.project ?? ".",
    cwd: io.cwd(),
    as: "project",
    allowAny: false,
  });
  const servers = configuredServers(instance, io.log);
  const choice = mcpChoice(options) ?? true;
  checkChoice(servers, choice);
  const profile = profileChoice(
    options,
    askDevcontainer(io, options.trustProject),
  );
  const image = await projectImage(instance, project.path, profile, io.log);
  const verdict = await judgeProjectConfig(
    instance,
    project.path,
    approveConfig(io, options.trustProject),
    io.log,
  );
  const { worker } = await claimOrSpawn(instance, {
    directory: project.path,
    cwd: "/",
    resolved: project,
    image: image.name,
    imageId: image.id,
    repository: repositoryConsent(io, options.allowWorktree),
    once: true,
    relay: relayUseFor(instance, env),
  }, io.log);
  try {
    const start = await prepareRun(io, instance, worker, {
      verdict,
      mcp: chosenServers(servers, choice),
      arguments: options["--"] ?? [],
      env,
    });
    return await ask(io, instance, worker, {
      ...start,
      format,
      arguments: [
        "-p",
        ...(format === undefined ? [] : eventArguments),
        ...modeArguments(startMode(instance, project.path, mode)),
        ...start.arguments,
        ...["--", prompt],
      ],
    });
  } finally {
    await stopWorker(instance, worker, io.log);
  }
}

type Worker = Pick<WorkerState, "id" | "name">;

/** Writes what Claude reads at its start into the worker's home. */
async function prepareRun(
  io: Io,
  instance: Instance,
  { id, name }: Worker,
  { mcp, ...start }: Omit<StartOptions, "container"> & { mcp: Servers },
): Promise<ClaudeStart> {
  const record = readRecord(instance, name, io.log);
  if (!record) {
    throw new Failure("failed", `The record of worker "${name}" is missing`, {
      hint: "Check the instance: claudy doctor",
    });
  }
  const owner = record.project;
  const claudeHome = join(instance.home.home, record.home);
  inheritForRun(claudeHome, owner, inheritRequest(instance, start.env), io.log);
  // Trusted: the user has already decided about the project's configuration.
  seedState(claudeHome, owner, true);
  offerServers(instance, claudeHome, owner, mcp);
  await warnAboutUnavailable(instance, mcp, io.log);
  const container = await inspectContainer(instance.docker, id);
  const files = { claudeHome, owner };
  return prepareStart(instance, files, { ...start, container }, io.log);
}
