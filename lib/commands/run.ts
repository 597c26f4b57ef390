// claudy run: runs one prompt in a new worker and prints Claude's answer.

import { join } from "node:path";
import type { CAC } from "cac";
import { inspectContainer } from "../docker/docker.ts";
import { runDocker } from "../docker/docker-cli.ts";
import { limitEvents, tellOfPids } from "../worker/limit-events.ts";
import { tellOfMemory } from "../worker/status.ts";
import { stopWorker } from "../worker/ending.ts";
import { Failure } from "../std/errors.ts";
import { inheritForRun, inheritRequest } from "../home/inherit.ts";
import { projectImage } from "../image/profiles.ts";
import { openInstance } from "../instance/open.ts";
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
import { workerEnvironment } from "../session/local-gateway.ts";
import { prepareStart } from "../session/start.ts";
import { claimOrSpawn } from "../session/worker.ts";
import { ensureHome } from "../instance/volumes.ts";
import { offerDaemon } from "./daemon.ts";
import { seedState } from "../home/worker-home.ts";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import { approveConfig, repositoryConsent } from "./trust.ts";
import {
  addMcpChoice,
  addProfileOptions,
  type McpChoice,
  mcpChoice,
  profileChoice,
  type ProfileOptions,
  trustOption,
  worktreeOption,
} from "./start-options.ts";

interface RunOptions extends ProfileOptions, McpChoice {
  project?: string;
  trustProject?: boolean;
  allowWorktree?: boolean;
  yes?: boolean;
  json?: boolean;
  "--"?: string[];
}

export function runCommand(io: Io): CAC {
  const cli = command("claudy run");
  addMcpChoice(addProfileOptions(
    cli.command(
      "<prompt>",
      "Run one prompt in a new worker and print the answer",
    ),
    "auto",
  ))
    .option("-p", "No effect (this is the default)")
    .option("-C, --project <dir>", "The project (default: here)")
    .option(...trustOption)
    .option("--allow-worktree", worktreeOption)
    .option("--yes", "Start the daemon without asking")
    .option("--json", "Print the answer as JSON")
    .example('claudy run -p "explain this project"')
    .action((prompt: unknown, options: RunOptions) =>
      runPrompt(io, String(prompt), options)
    );
  return cli;
}

/** Makes Claude wait for the MCP servers before it handles the only prompt. */
const serverWait = {
  MCP_CONNECTION_NONBLOCKING: "0",
  MCP_CONNECT_TIMEOUT_MS: "30000",
};

/** Runs `claude -p` in a worker that is stopped afterwards; returns the exit code. */
async function runPrompt(
  io: Io,
  prompt: string,
  options: RunOptions,
): Promise<number> {
  const instance = await openInstance(io.env, io.log);
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
  const image = await projectImage(
    instance,
    project.path,
    profileChoice(options),
    io.log,
  );
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
  }, io.log);
  try {
    const record = readRecord(instance, worker.name, io.log);
    if (!record) {
      throw new Failure(
        "failed",
        `The record of worker "${worker.name}" is missing`,
      );
    }
    const claudeHome = join(instance.home.home, record.home);
    inheritForRun(
      claudeHome,
      record.project,
      inheritRequest(instance, env),
      io.log,
    );
    // Trusted: the user has already decided about the project's configuration.
    seedState(claudeHome, record.project, true);
    const mcp = chosenServers(servers, choice);
    offerServers(instance, claudeHome, record.project, mcp);
    await warnAboutUnavailable(instance, mcp, io.log);
    const started = prepareStart(
      instance,
      { claudeHome, owner: record.project },
      {
        container: await inspectContainer(instance.docker, worker.id),
        verdict,
        env,
        arguments: options["--"] ?? [],
      },
    );
    if (started.left.length > 0) {
      io.log(`Not passed to Claude: ${started.left.join("; ")}`);
    }
    const variables = { ...started.env, ...serverWait };
    const since = Date.now();
    const code = await runDocker([
      "exec",
      "--interactive",
      ...Object.keys(variables).map((name) => `--env=${name}`),
      worker.id,
      "claude-session",
      "-p",
      ...(options.json ? ["--output-format", "json"] : []),
      ...started.arguments,
      "--",
      prompt,
    ], { env: variables, filtered: true });
    const events = await limitEvents(instance, worker.id);
    tellOfPids({ name: worker.name, events, runs: false }, io.log);
    if (code !== 0) {
      await tellOfMemory(instance, worker, {
        since,
        hint: "Raise the limit: WORKER_MEMORY in config/hal9000.conf.",
      }, io.log);
    }
    return code;
  } finally {
    await stopWorker(instance, worker, io.log);
  }
}
