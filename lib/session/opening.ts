// What is asked of a session that opens, and whether it can be done.

import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import type { InheritRequest } from "../home/host-config.ts";
import { sessionHome } from "../home/worker-home.ts";
import type { Instance } from "../instance/instance.ts";
import type { PermissionMode } from "../instance/permission-mode.ts";
import {
  readSessions,
  type SessionRecord,
} from "../instance/session-record.ts";
import type { WorkerNetwork } from "../instance/settings.ts";
import type { Servers } from "../mcp/config.ts";
import {
  checkChoice,
  type Choice,
  chosenServers,
  configuredServers,
} from "../mcp/offer.ts";
import {
  checkProfile,
  detected,
  type Profile,
  profileOf,
} from "../project/profile.ts";
import type { ProjectConfig } from "../project/project-config.ts";
import { type Project, resolveProject } from "../project/project.ts";
import { Failure } from "../std/errors.ts";
import type { HostPath } from "../std/hostpath.ts";
import type { Log } from "../std/log.ts";
import { checkWorkerName } from "../worker/name.ts";
import { copyOf, newCopyName } from "../workspace/workspace.ts";
import { type CopyChoice, refuseCopy } from "./copy.ts";
import {
  defaultSessionName,
  existingRecord,
  type SessionToSave,
} from "./save.ts";
import type { WorkerOptions } from "./worker.ts";

export interface OpenRequest extends WorkerOptions {
  directory: string;
  cwd: string;
  /** Session name. @default derived from the project's path */
  name?: string | undefined;
  /** What to take along into a copy of the project; undefined to work in the project. */
  copy?: CopyChoice | undefined;
  /** Start a new conversation even if there is one to resume. */
  fresh?: boolean;
  /** Which Claude configuration of the host a new session inherits. */
  inherit?: InheritRequest | undefined;
  /** The host's MCP servers for the session. @default the saved choice, else all */
  mcp: Choice | undefined;
  /** Arguments for Claude, used if it is not running yet. */
  claudeArguments: string[];
  /** What Claude is asked when it starts. */
  prompt?: string | undefined;
  /** @default the session's saved one, else WORKER_NETWORK */
  network?: WorkerNetwork | undefined;
  /** @default the session's saved one, else PERMISSION_MODES, else Claude's own */
  permissionMode?: PermissionMode | undefined;
  /** Asks the user to approve the project's Claude configuration. */
  approveConfig: (config: ProjectConfig) => Promise<boolean>;
  /** The caller's environment. */
  env: NodeJS.ProcessEnv;
}

/** A checked request. No file of the session has been written yet. */
export interface Opening extends SessionToSave {
  project: Project & HostPath;
  profile: Profile;
  servers: Servers;
  claudeHome: string;
  /** What is mounted as the workspace: the project or a copy of it. */
  workspace: () => HostPath;
}

/** Throws a Failure if the request cannot be fulfilled. Writes and starts nothing. */
export async function checkOpening(
  instance: Instance,
  request: OpenRequest,
  log: Log,
): Promise<Opening> {
  const project = await resolveProject(instance, {
    path: request.directory,
    cwd: request.cwd,
    as: "project",
    allowAny: request.allowAnyPath ?? false,
  }).catch((error) => {
    throw missingProject(instance, request, error);
  });
  const session = request.name === undefined
    ? request.copy
      ? newCopyName(instance, project.path)
      : defaultSessionName(instance, project, log)
    : checkWorkerName(request.name, instance.names);
  const configured = configuredServers(instance, log);
  if (request.mcp !== undefined) checkChoice(configured, request.mcp);
  const chosen = request.profile.name &&
    checkProfile(request.profile.name, instance.home);
  const before = existingRecord(instance, session, project, log);
  const isCopy = before ? before.copy ?? false : request.copy !== undefined;
  refuseCopy(request.copy, before);
  const profile = profileOf(
    project.path,
    instance.host,
    chosen ?? before?.profile,
    log,
    instance.settings,
  );
  // A standalone container cannot reach the MCP servers.
  const choice = request.standalone
    ? false
    : request.mcp ?? before?.mcp ?? true;
  const servers = chosenServers(configured, choice);
  const claudeHome = join(instance.home.home, sessionHome(session));
  return {
    project,
    session,
    before,
    profile,
    chosenProfile: chosen === detected ? undefined : chosen ?? before?.profile,
    servers,
    claudeHome,
    isCopy,
    workspace: () => isCopy ? copyOf(instance, session) : project,
    homeIsNew: !existsSync(claudeHome),
    mcp: request.mcp,
    network: request.network,
    caches: request.caches,
    permissionMode: request.permissionMode,
  };
}

/** For a project that has a session, says what to do about its missing directory. */
function missingProject(
  instance: Instance,
  { directory, cwd }: OpenRequest,
  error: unknown,
): unknown {
  if (!(error instanceof Failure) || error.kind !== "notFound") return error;
  const path = resolve(cwd, directory);
  const session = readSessions(instance).find(({ project }) =>
    project === path
  );
  return session ? projectIsMissing(session) : error;
}

/** The Failure for a session whose project does not exist any more. */
export function projectIsMissing({ name, project }: SessionRecord): Failure {
  return new Failure(
    "notFound",
    `The project of session "${name}" is missing: ${project}`,
    {
      hint: `If it was moved: claudy move ${name} DIRECTORY. ` +
        `To remove the session: claudy sessions rm ${name}`,
    },
  );
}
