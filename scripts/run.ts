// claudy run: one answer of Claude, in a worker that is there for it alone.

import { join } from "node:path";
import process from "node:process";
import type { CAC } from "cac";
import { layOutSettings } from "../lib/claude-settings.ts";
import { layOutCredentials } from "../lib/credentials.ts";
import { environmentOf, inspectContainer } from "../lib/docker.ts";
import { runDocker } from "../lib/docker-cli.ts";
import { tellOfMemory } from "../lib/status.ts";
import { stopWorker } from "../lib/ending.ts";
import { Failure } from "../lib/errors.ts";
import { inheritForOnce, inheritRequest } from "../lib/inherit.ts";
import { projectImage } from "../lib/images/profiles.ts";
import { openInstance } from "../lib/instance.ts";
import { logToStderr } from "../lib/log.ts";
import {
  checkChoice,
  chosenServers,
  configuredServers,
  offerServers,
  tellOfMissing,
} from "../lib/mcp/offer.ts";
import { resolveProject } from "../lib/project.ts";
import { judgeProjectConfig } from "../lib/project-config.ts";
import { readRecord } from "../lib/record.ts";
import { passedOn } from "../lib/session.ts";
import { writeContext } from "../lib/session-context.ts";
import { claimOrSpawn } from "../lib/session-worker.ts";
import { ensureHome } from "../lib/volumes.ts";
import { offerDaemon } from "./daemon.ts";
import { addMcpChoice, type McpChoice, mcpChoice } from "./mcp-choice.ts";
import { seedState } from "../lib/worker-home.ts";
import { approveConfig, trustOption } from "./trust.ts";
import { worktreeOption } from "./options.ts";
import { repositoryConsent } from "./output.ts";
import {
  addProfileOptions,
  type ProfileOptions,
  profileWish,
} from "./profiles.ts";

const { env } = process;

interface RunOptions extends ProfileOptions, McpChoice {
  project?: string;
  trustProject?: boolean;
  allowWorktree?: boolean;
  yes?: boolean;
  json?: boolean;
  "--"?: string[];
}

/** Adds claudy run. */
export function addRun(cli: CAC): void {
  addMcpChoice(addProfileOptions(
    cli.command(
      "run <prompt>",
      "Ask Claude once in a worker of its own; print the answer",
    ),
    "as the project's files say",
  ))
    .option("-p", "Accepted; it is what is done")
    .option("-C, --project <dir>", "The project (default: here)")
    .option(...trustOption)
    .option("--allow-worktree", worktreeOption)
    .option("--yes", "Start the daemon without asking")
    .option("--json", "Print the CLI's JSON")
    .example('claudy run -p "explain this project"')
    .action(runPrompt);
}

/** `claude -p` in a worker that is there for it alone; gives its exit code. */
async function runPrompt(
  prompt: string,
  options: RunOptions,
): Promise<number> {
  const instance = await openInstance(env, logToStderr);
  await offerDaemon(instance, options.yes ?? false);
  ensureHome(instance);
  const project = await resolveProject(instance, {
    path: options.project ?? ".",
    cwd: process.cwd(),
    as: "project",
    allowAny: false,
  });
  const servers = configuredServers(instance, logToStderr);
  const choice = mcpChoice(options) ?? true;
  checkChoice(servers, choice);
  const image = await projectImage(
    instance,
    project.path,
    profileWish(options),
    logToStderr,
  );
  const verdict = await judgeProjectConfig(
    instance,
    project.path,
    approveConfig(options.trustProject),
    logToStderr,
  );
  const { worker } = await claimOrSpawn(instance, {
    directory: project.path,
    cwd: "/",
    image: image.name,
    imageId: image.id,
    repository: repositoryConsent(options.allowWorktree),
    once: true,
  }, logToStderr);
  try {
    const record = readRecord(instance, worker.name, logToStderr);
    if (!record) throw new Failure("failed", "The worker has lost its record");
    const claudeHome = join(instance.home.home, record.home);
    inheritForOnce(
      claudeHome,
      record.project,
      inheritRequest(instance, env),
      logToStderr,
    );
    // What of the project takes effect has been decided.
    seedState(claudeHome, record.project, true);
    const mcp = chosenServers(servers, choice);
    offerServers(instance, claudeHome, record.project, mcp);
    await tellOfMissing(instance, mcp, logToStderr);
    const signIn = layOutCredentials(
      instance,
      claudeHome,
      record.project,
      env,
    );
    const container = await inspectContainer(instance.docker, worker.id);
    writeContext(instance, claudeHome, record.project, {
      container,
      portBase: undefined,
      approved: verdict.approved,
    });
    const variables = { ...passedOn(env), ...signIn.env };
    const started = layOutSettings(claudeHome, record.project, {
      signIn,
      env: { ...environmentOf(container), ...passedOn(env) },
      ...verdict,
      arguments: options["--"] ?? [],
    });
    const since = Date.now();
    const code = await runDocker([
      "exec",
      "--interactive",
      ...Object.keys(variables).map((name) => `--env=${name}`),
      worker.id,
      "claude-session",
      "-p",
      ...(options.json ? ["--output-format", "json"] : []),
      ...started,
      "--",
      String(prompt),
    ], { env: variables, filtered: true });
    if (code !== 0) {
      await tellOfMemory(instance, worker, {
        since,
        hint: "Set a higher WORKER_MEMORY in config/hal9000.conf.",
      }, logToStderr);
    }
    return code;
  } finally {
    await stopWorker(instance, worker, logToStderr);
  }
}
