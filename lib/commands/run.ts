// claudy run: one answer of Claude, in a worker that is there for it alone.

import { join } from "node:path";
import process from "node:process";
import type { CAC } from "cac";
import { layOutSettings } from "../home/claude-settings.ts";
import { layOutCredentials } from "../home/credentials.ts";
import { environmentOf, inspectContainer } from "../docker/docker.ts";
import { runDocker } from "../docker/docker-cli.ts";
import { tellOfMemory } from "../worker/status.ts";
import { stopWorker } from "../worker/ending.ts";
import { Failure } from "../std/errors.ts";
import { inheritForOnce, inheritRequest } from "../home/inherit.ts";
import { projectImage } from "../image/profiles.ts";
import { openInstance } from "../instance/open.ts";
import { logToStderr } from "../std/log.ts";
import {
  checkChoice,
  chosenServers,
  configuredServers,
  offerServers,
  tellOfMissing,
} from "../mcp/offer.ts";
import { resolveProject } from "../project/project.ts";
import { judgeProjectConfig } from "../project/project-config.ts";
import { readRecord } from "../instance/record.ts";
import { passedOn } from "../session/session.ts";
import { writeContext } from "../session/context.ts";
import { claimOrSpawn } from "../session/worker.ts";
import { ensureHome } from "../instance/volumes.ts";
import { offerDaemon } from "./daemon.ts";
import { addMcpChoice, type McpChoice, mcpChoice } from "./mcp-choice.ts";
import { seedState } from "../home/worker-home.ts";
import { approveConfig, trustOption } from "./trust.ts";
import { worktreeOption } from "../cli/options.ts";
import { repositoryConsent } from "./trust.ts";
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
