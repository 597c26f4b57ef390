// A session: one conversation of a project, in the tmux server of whatever worker
// it has at present. Its Claude home outlives its workers.

import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { layOutSettings } from "../home/claude-settings.ts";
import { hasConversation } from "./conversations.ts";
import { layOutCredentials } from "../home/credentials.ts";
import { environmentOf, inspectContainer } from "../docker/docker.ts";
import { stopWorker } from "../worker/ending.ts";
import { Failure, messageOf, warnOnFileError } from "../std/errors.ts";
import { execIn, processNames } from "../docker/exec.ts";
import type { Instance } from "../instance/instance.ts";
import {
  inherit,
  type Inherited,
  inheritOnce,
  type InheritRequest,
  readHostConfig,
} from "../home/inherit.ts";
import type { Log } from "../std/log.ts";
import {
  checkChoice,
  type Choice,
  chosenServers,
  configuredServers,
  offerServers,
  warnAboutUnavailable,
} from "../mcp/offer.ts";
import { didYouMean } from "../std/nearest.ts";
import { freePorts, reservePorts } from "../instance/port-range.ts";
import { checkProfile, detected, profileOf } from "../project/profile.ts";
import {
  judgeGitFirst,
  judgeProjectConfig,
  type ProjectConfig,
} from "../project/project-config.ts";
import {
  formerSessionName,
  type Project,
  resolveProject,
  sessionName,
} from "../project/project.ts";
import { writeContext } from "./context.ts";
import { removeTree } from "../std/remove-tree.ts";
import {
  readSession,
  readSessions,
  removeSessionRecord,
  type SessionRecord,
  writeSession,
} from "../instance/session-record.ts";
import { hasTerminal, tmux } from "./tmux.ts";
import { type SessionWorker, workerOf, type WorkerOptions } from "./worker.ts";
import { ensureHome } from "../instance/volumes.ts";
import { waitFor } from "../std/wait.ts";
import { checkWorkerName } from "../worker/worker.ts";
import { insideWorker } from "../instance/paths.ts";
import { sessionHome } from "../home/worker-home.ts";
import { listWorkers } from "../worker/workers.ts";

export interface OpenRequest extends WorkerOptions {
  directory: string;
  cwd: string;
  /** Of several sessions of one project; else it follows from the path. */
  name?: string | undefined;
  /** A conversation of its own, though there is one to go on with. */
  fresh?: boolean;
  /** Of the host's Claude configuration, for a session that is new. */
  inherit?: InheritRequest | undefined;
  /** Which of the host's MCP servers it has; undefined for those it had. */
  mcp: Choice | undefined;
  /** Given to the Claude CLI, where it has to be started. */
  claudeArguments: string[];
  /** Whether the user approves what the project configures Claude to do. */
  approveConfig: (config: ProjectConfig) => Promise<boolean>;
  /** The caller's: what of it the CLI is told. */
  env: NodeJS.ProcessEnv;
}

/** A session that has its worker; Claude may be running in it or not. */
export interface ReadySession {
  session: string;
  project: string;
  worker: string;
  id: string;
  start: SessionWorker["start"];
  /** What starts Claude, where it does not run. */
  command: string[];
  env: Record<string, string>;
  /** Whether it is told to go on with a conversation. */
  resumes: boolean;
}

/** Finds or makes the worker of the project's session. */
export async function readySession(
  instance: Instance,
  request: OpenRequest,
  log: Log,
): Promise<ReadySession> {
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
  const servers = configuredServers(instance, log);
  if (request.mcp !== undefined) checkChoice(servers, request.mcp);
  // What is wrong with either is told before anything is kept.
  const chosen = request.profile.name &&
    checkProfile(request.profile.name, instance.home);
  profileOf(project.path, instance.host, chosen, () => {});
  const before = knownSession(instance, session, project, log);
  // In a network of its own a container reaches none.
  const choice = request.standalone
    ? false
    : request.mcp ?? before?.mcp ?? true;
  const mcp = chosenServers(servers, choice);
  await warnAboutUnavailable(instance, mcp, log);
  const judged = await judgeGitFirst(
    instance,
    project.path,
    request.approveConfig,
    log,
  );
  const claudeHome = join(instance.home.home, sessionHome(session));
  const homeIsNew = !existsSync(claudeHome);
  let record: SessionRecord | undefined;
  const prepare = () => {
    record = remember(instance, session, project, before);
    inheritOnce(instance, session, project, request.inherit, log);
  };
  const { worker, start } = await workerOf(
    instance,
    session,
    project,
    {
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
    before?.profile,
    prepare,
    log,
  ).catch(async (error) => {
    if (record && !before) await takeBack(instance, record, homeIsNew, log);
    throw error;
  });
  const claudeRuns = start === "running" &&
    await hasTerminal(instance.docker, worker.id);
  // Where Claude runs, nothing depends on what cannot be written.
  const write = (act: () => Promise<void> | void) =>
    claudeRuns ? warnOnFileError(log, act) : act();
  if (!record) {
    await write(() => {
      record = remember(instance, session, project, before);
    });
  }
  const profile = chosen === detected ? undefined : chosen ?? before?.profile;
  if (record && (profile !== record.profile || request.mcp !== undefined)) {
    const changed = { ...record, profile, mcp: request.mcp ?? record.mcp };
    await write(() => writeSession(instance, changed));
  }
  const verdict = claudeRuns
    // Claude runs with what it was started with.
    ? { approved: true, forbidden: [] }
    : judged ?? await judgeProjectConfig(
      instance,
      project.path,
      request.approveConfig,
      log,
    );
  // Ports need no dividing where nobody else is.
  const portBase = request.standalone
    ? undefined
    : (record ?? before)?.portBase;
  const container = await inspectContainer(instance.docker, worker.id);
  await write(() =>
    writeContext(instance, claudeHome, project, {
      container,
      portBase,
      approved: verdict.approved,
    })
  );
  const resumes = !request.fresh && hasConversation(instance, session);
  // In a worker that runs the CLI may be at work on the same file.
  if (start !== "running") {
    offerServers(instance, claudeHome, project, mcp);
  } else if (request.mcp !== undefined) {
    log("The session runs: it has other MCP servers from its next start on");
  }
  // Used only where Claude ends now and the disk was too full for its settings.
  let started = ["--setting-sources", "user"];
  let signInEnv: Record<string, string> = {};
  await write(() => {
    const { env } = request;
    const signIn = layOutCredentials(instance, claudeHome, project, env);
    signInEnv = signIn.env;
    started = layOutSettings(claudeHome, project, {
      signIn,
      env: { ...environmentOf(container), ...passedOn(env) },
      ...verdict,
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
      ...started,
    ],
    env: {
      ...(request.sshAgent ? { SSH_AUTH_SOCK: insideWorker.sshAgent } : {}),
      ...signInEnv,
      ...passedOn(request.env),
      ...(portBase === undefined ? {} : { HAL9000_PORT_BASE: `${portBase}` }),
    },
    resumes,
  };
}

/** Brings later changes of the host's configuration into a session that is stopped. */
export async function syncSession(
  instance: Instance,
  { name, project: path }: SessionRecord,
  request: InheritRequest,
  log: Log,
): Promise<Inherited & { left: string[] }> {
  const live = (await listWorkers(instance))
    .some(({ session, state }) => session === name && state !== "exited");
  if (live) {
    throw new Failure("busy", `Session "${name}" has a worker`, {
      hint: `Stop it first: claudy stop ${name}`,
    });
  }
  const project = await resolveProject(instance, {
    path,
    cwd: "/",
    as: "project",
    allowAny: true,
  });
  const config = readHostConfig(request, log);
  return { ...inherit(instance, name, project, config), left: config.left };
}

/** What was found: a CLI that runs, a conversation to go on with, neither. */
export type Conversation = "running" | "resumed" | "new";

/** Starts Claude without a terminal, unless it runs. */
export async function startSession(
  { docker }: Pick<Instance, "docker">,
  ready: ReadySession,
): Promise<Conversation> {
  const { id, command, env } = ready;
  if (ready.start === "running" && await hasTerminal(docker, id)) {
    return "running";
  }
  const { exitCode, output } = await execIn(docker, id, [
    ...tmux,
    ...["new-session", "-d", "-s", "claude"],
    ...command,
  ], { env });
  if (exitCode === 0) return ready.resumes ? "resumed" : "new";
  if (await hasTerminal(docker, id)) return "running"; // another was faster
  throw new Failure("failed", `Cannot start Claude: ${output.trim()}`, {
    hint: `Look around in the worker: docker exec -it ${ready.worker} bash`,
  });
}

/** That of the path, or the one that version 0.5 gave where it was migrated. */
function nameOf(instance: Instance, { path }: Project, log: Log): string {
  const name = sessionName(path);
  const former = formerSessionName(path);
  if (name === former || readSession(instance, name, log)) return name;
  return readSession(instance, former, log) ? former : name;
}

/** What is kept of a session. Refuses a name that another project's session has. */
function knownSession(
  instance: Instance,
  session: string,
  { path }: Project,
  log: Log,
): SessionRecord | undefined {
  const before = readSession(instance, session, log);
  if (!before || before.project === path) return before;
  throw new Failure("busy", `Session "${session}" is of ${before.project}`, {
    hint: "Choose another --name.",
  });
}

/** Writes down that a session is opened, and reserves its ports. */
function remember(
  instance: Instance,
  session: string,
  { path }: Project,
  before: SessionRecord | undefined,
): SessionRecord {
  const usedAt = new Date().toISOString();
  const record: SessionRecord = {
    version: 1,
    name: session,
    project: path,
    createdAt: before?.createdAt ?? usedAt,
    usedAt,
    portBase: before?.portBase,
    profile: before?.profile,
    repository: before?.repository,
    mcp: before?.mcp,
  };
  writeSession(instance, record);
  if (record.portBase !== undefined) return record;
  try {
    // Behind the record, without which a range would seem to be nobody's.
    record.portBase = reservePorts(instance, session);
    writeSession(instance, record);
  } catch (error) {
    if (!before) removeSessionRecord(instance, session);
    throw error;
  }
  return record;
}

/**
 * Removes what was kept of a new session that could not be given a worker, unless
 * somebody else has opened it since.
 */
async function takeBack(
  instance: Instance,
  { name, usedAt, portBase }: SessionRecord,
  homeIsNew: boolean,
  log: Log,
): Promise<void> {
  try {
    if (readSession(instance, name, log)?.usedAt !== usedAt) return;
    const workers = await listWorkers(instance);
    if (workers.some(({ session }) => session === name)) return;
    if (portBase !== undefined) freePorts(instance, portBase);
    if (homeIsNew) await removeSessionHome(instance, name);
    removeSessionRecord(instance, name);
  } catch (error) {
    // What refused the session is what the user has to hear of.
    log(`warning: Cannot forget "${name}": ${messageOf(error)}`);
  }
}

/** Of the caller's variables, those that the CLI is to know. */
export function passedOn(env: NodeJS.ProcessEnv): Record<string, string> {
  const names = ["ANTHROPIC_BASE_URL", "ANTHROPIC_MODEL", "COLORTERM"];
  return Object.fromEntries(
    names.flatMap((name) => env[name] ? [[name, env[name]]] : []),
  );
}

/** The session of this name; throws a `notFound` Failure with the nearest. */
export function findSession(
  instance: Instance,
  name: string,
  log: Log,
): SessionRecord {
  const found = readSession(instance, name, log);
  if (found) return found;
  const names = readSessions(instance, log).map((session) => session.name);
  throw new Failure("notFound", `There is no session "${name}"`, {
    hint: `${didYouMean(name, names)}See claudy sessions.`,
  });
}

/** How long the CLI may take to write down what it has. */
const gracePeriodMs = 3000;

async function sayFarewell({ docker }: Instance, id: string): Promise<void> {
  const limits = { timeoutMs: gracePeriodMs };
  await execIn(docker, id, [...tmux, "kill-server"], limits);
  await waitFor(
    async () => !(await processNames(docker, id)).includes("claude"),
    { for: "Claude to end", timeoutMs: gracePeriodMs, everyMs: 50 },
  );
}

/** Ends the CLI, then the worker; the conversation stays. */
export async function stopSession(
  instance: Instance,
  name: string,
  log: Log,
): Promise<boolean> {
  const worker = (await listWorkers(instance))
    .find(({ session }) => session === name);
  if (!worker) return false;
  if (worker.state === "running") {
    await sayFarewell(instance, worker.id).catch(() => {
      // It is killed with its worker.
    });
  }
  await stopWorker(instance, worker, log);
  return true;
}

/** Stops a session and removes all that is kept of it. */
export async function removeSession(
  instance: Instance,
  name: string,
  log: Log,
): Promise<void> {
  await stopSession(instance, name, log);
  const portBase = readSession(instance, name, log)?.portBase;
  if (portBase !== undefined) freePorts(instance, portBase);
  await removeSessionHome(instance, name);
  removeSessionRecord(instance, name);
}

async function removeSessionHome(
  { home }: Instance,
  name: string,
): Promise<void> {
  await removeTree(join(home.home, sessionHome(name)));
  rmSync(home.inherited(name), { force: true });
}
