// Opening a session: finds or makes its worker, and prepares the start of Claude in it.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { hasConversation } from "./conversations.ts";
import { inspectContainer } from "../docker/docker.ts";
import { warnOnFileError } from "../std/errors.ts";
import type { HostPath } from "../std/hostpath.ts";
import type { Instance } from "../instance/instance.ts";
import { inheritOnce, type InheritRequest } from "../home/inherit.ts";
import type { Log } from "../std/log.ts";
import {
  checkChoice,
  type Choice,
  chosenServers,
  configuredServers,
  offerServers,
  warnAboutUnavailable,
} from "../mcp/offer.ts";
import type { Servers } from "../mcp/config.ts";
import {
  checkProfile,
  detected,
  type Profile,
  profileOf,
} from "../project/profile.ts";
import {
  type ConfigVerdict,
  judgeGitFirst,
  judgeProjectConfig,
  type ProjectConfig,
} from "../project/project-config.ts";
import { type Project, resolveProject } from "../project/project.ts";
import {
  type SessionRecord,
  writeSession,
} from "../instance/session-record.ts";
import {
  knownSession,
  nameOf,
  remember,
  type SessionToKeep,
  takeBack,
} from "./keep.ts";
import { type ClaudeStart, prepareStart, type ReadySession } from "./start.ts";
import { hasTerminal } from "./tmux.ts";
import { type SessionWorker, workerOf, type WorkerOptions } from "./worker.ts";
import { ensureHome } from "../instance/volumes.ts";
import { checkWorkerName } from "../worker/name.ts";
import { insideWorker } from "../instance/paths.ts";
import { sessionHome } from "../home/worker-home.ts";

export interface OpenRequest extends WorkerOptions {
  directory: string;
  cwd: string;
  /** For a further session of a project. @default derived from the path */
  name?: string | undefined;
  /** Begins a new conversation even if there is one to resume. */
  fresh?: boolean;
  /** The host's Claude configuration, for a new session. */
  inherit?: InheritRequest | undefined;
  /** The host's MCP servers for the session. @default those it had */
  mcp: Choice | undefined;
  /** Arguments for Claude, if it has to be started. */
  claudeArguments: string[];
  /** Whether the user approves what the project configures Claude to do. */
  approveConfig: (config: ProjectConfig) => Promise<boolean>;
  /** The caller's environment. */
  env: NodeJS.ProcessEnv;
}

/** A request that was checked. Nothing has been written for it. */
interface Opening extends SessionToKeep {
  project: Project & HostPath;
  profile: Profile;
  servers: Servers;
  claudeHome: string;
  /** Judged already if git might run programs of the project. */
  judged: ConfigVerdict | undefined;
}

/** Finds or makes the worker of the project's session. */
export async function readySession(
  instance: Instance,
  request: OpenRequest,
  log: Log,
): Promise<ReadySession> {
  const opening = await checkOpening(instance, request, log);
  const { project, session, before, claudeHome } = opening;
  const { worker, start, record } = await findOrMakeWorker(
    instance,
    opening,
    request,
    log,
  );
  const claudeRuns = start === "running" &&
    await hasTerminal(instance.docker, worker.id);
  // A running Claude does not depend on files that cannot be written.
  const write = (act: () => void) =>
    claudeRuns ? warnOnFileError(log, act) : act();
  let kept = record ?? before;
  if (!record) {
    await write(() => {
      kept = remember(instance, opening);
    });
  }
  // Ports are divided among the sessions that share a network.
  const portBase = request.standalone ? undefined : kept?.portBase;
  const verdict = claudeRuns
    ? { approved: true, forbidden: [] } // it keeps what it was started with
    : opening.judged ?? await judgeProjectConfig(
      instance,
      project.path,
      request.approveConfig,
      log,
    );
  const resumes = !request.fresh && hasConversation(instance, session);
  if (start !== "running") {
    offerServers(instance, claudeHome, project, opening.servers);
  } else if (request.mcp !== undefined) {
    // The CLI may be writing the same file.
    log("The session runs: it has other MCP servers from its next start on");
  }
  // Used if Claude ends at this moment and its settings could not be written.
  let started: ClaudeStart = {
    arguments: ["--setting-sources", "user"],
    env: {},
  };
  const container = await inspectContainer(instance.docker, worker.id);
  await write(() => {
    started = prepareStart(instance, { claudeHome, owner: project }, {
      container,
      portBase,
      verdict,
      env: request.env,
      arguments: request.claudeArguments,
    });
  });
  return {
    session,
    project: project.path,
    worker: worker.name,
    id: worker.id,
    start,
    command: [
      "claude-session",
      ...(resumes ? ["--continue"] : []),
      ...started.arguments,
    ],
    env: {
      ...(request.sshAgent ? { SSH_AUTH_SOCK: insideWorker.sshAgent } : {}),
      ...started.env,
      ...(portBase === undefined ? {} : { HAL9000_PORT_BASE: `${portBase}` }),
    },
    resumes,
  };
}

/** Throws a Failure for a request that cannot be met. */
async function checkOpening(
  instance: Instance,
  request: OpenRequest,
  log: Log,
): Promise<Opening> {
  const project = await resolveProject(instance, {
    path: request.directory,
    cwd: request.cwd,
    as: "project",
    allowAny: request.allowAnyPath ?? false,
  });
  ensureHome(instance);
  const session = request.name === undefined
    ? nameOf(instance, project, log)
    : checkWorkerName(request.name, instance.names);
  const configured = configuredServers(instance, log);
  if (request.mcp !== undefined) checkChoice(configured, request.mcp);
  const chosen = request.profile.name &&
    checkProfile(request.profile.name, instance.home);
  const before = knownSession(instance, session, project, log);
  const profile = profileOf(
    project.path,
    instance.host,
    chosen ?? before?.profile,
    log,
  );
  // A container with a network of its own reaches no server.
  const choice = request.standalone
    ? false
    : request.mcp ?? before?.mcp ?? true;
  const servers = chosenServers(configured, choice);
  await warnAboutUnavailable(instance, servers, log);
  const judged = await judgeGitFirst(
    instance,
    project.path,
    request.approveConfig,
    log,
  );
  const claudeHome = join(instance.home.home, sessionHome(session));
  return {
    project,
    session,
    before,
    profile,
    chosenProfile: chosen === detected ? undefined : chosen ?? before?.profile,
    servers,
    claudeHome,
    homeIsNew: !existsSync(claudeHome),
    mcp: request.mcp,
    judged,
  };
}

/** Gives the session's record, too, if the worker had to be made. */
async function findOrMakeWorker(
  instance: Instance,
  opening: Opening,
  request: OpenRequest,
  log: Log,
): Promise<SessionWorker & { record: SessionRecord | undefined }> {
  const { session, project, before, profile } = opening;
  let record: SessionRecord | undefined;
  try {
    const found = await workerOf(instance, {
      session,
      project,
      profile,
      options: {
        ...request,
        repository: {
          allowed: false,
          ...request.repository,
          remembered: before?.repository,
          remember: (repository) => {
            if (!record) return;
            record.repository = repository;
            writeSession(instance, record);
          },
        },
      },
      prepare: () => {
        record = remember(instance, opening);
        inheritOnce(instance, session, project, request.inherit, log);
      },
    }, log);
    return { ...found, record };
  } catch (error) {
    if (record) await takeBack(instance, opening, record, log);
    throw error;
  }
}
