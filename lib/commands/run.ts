// claudy run: runs one prompt in a new worker and prints Claude's answer.

import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { CAC } from "cac";
import { inspectContainer } from "../docker/docker.ts";
import { runDocker } from "../docker/docker-cli.ts";
import { limitEvents, tellOfPids } from "../worker/limit-events.ts";
import { tellOfMemory } from "../worker/status.ts";
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
  answerLine,
  eventArguments,
  type OutputFormat,
  outputFormats,
} from "../session/answer.ts";
import {
  modeArguments,
  type PermissionMode,
  startMode,
} from "../instance/permission-mode.ts";
import type { Log } from "../std/log.ts";
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
import { approveConfig, askDevcontainer, repositoryConsent } from "./trust.ts";
import {
  addMcpChoice,
  addPermissionOptions,
  addProfileOptions,
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

interface RunOptions extends ProfileOptions, McpChoice, PermissionOptions {
  project?: string;
  file?: unknown;
  requireLimits?: boolean;
  unguarded?: boolean;
  network?: unknown;
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
  addPermissionOptions(
    addMcpChoice(addProfileOptions(running, "auto")),
    "PERMISSION_MODES, else Claude's own",
  )
    .usage(`[options] [...prompt] ${claudeArguments}`)
    .option("-p", "No effect (this is the default)")
    .option(
      "-f, --file <file>",
      "Read the prompt from a file, or with - from stdin",
    )
    .option("-C, --project <dir>", "The project (default: here)")
    .option(...limitsOption)
    .option(...networkOption)
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
      return await runPrompt(io, asked, options);
    });
  return cli;
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

/** Makes Claude wait for the MCP servers before it handles the only prompt. */
const serverWait = {
  MCP_CONNECTION_NONBLOCKING: "0",
  MCP_CONNECT_TIMEOUT_MS: "30000",
};

interface Asked {
  prompt: string;
  format: OutputFormat | undefined;
  mode: PermissionMode | undefined;
}

/** Runs `claude -p` in a worker that is stopped afterwards; returns the exit code. */
async function runPrompt(
  io: Io,
  { prompt, format, mode }: Asked,
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

/** How often the command says that it still waits. */
const waitingMs = 30_000;

/** Reports that the answer is waited for, as nothing is printed until Claude has it. */
export async function whileWaiting<T>(
  answer: Promise<T>,
  log: Log,
  everyMs = waitingMs,
): Promise<T> {
  const since = Date.now();
  const waiting = setInterval(() => {
    const seconds = Math.round((Date.now() - since) / 1000);
    log(`Waiting for the answer for ${seconds} s`);
  }, everyMs);
  return await answer.finally(() => clearInterval(waiting));
}

/** Runs Claude in a worker; returns its exit code. */
async function ask(
  io: Io,
  instance: Instance,
  worker: Worker,
  start: ClaudeStart & { format: OutputFormat | undefined },
): Promise<number> {
  const { format } = start;
  const env = { ...start.env, ...serverWait };
  const since = Date.now();
  const code = await whileWaiting(
    runDocker([
      "exec",
      // The CLI waits three seconds for input, which a terminal does not give.
      ...(io.isInteractive ? [] : ["--interactive"]),
      ...Object.keys(env).map((name) => `--env=${name}`),
      ...[worker.id, "claude-session", ...start.arguments],
    ], {
      env,
      filtered: true,
      endsOnInterrupt: true,
      onLine: format === undefined || format === "stream-json"
        ? undefined
        : (line) => answerLine(line, format, io.log),
    }),
    io.log,
  );
  const events = await limitEvents(instance, worker.id);
  tellOfPids({ name: worker.name, events, runs: false }, io.log);
  if (code !== 0) {
    await tellOfMemory(instance, worker, {
      since,
      killed: (events?.oomKills ?? 0) > 0,
      hint: "Raise the limit: WORKER_MEMORY in config/hal9000.conf.",
    }, io.log);
  }
  return code;
}
