// Opens a session: finds or starts its worker, and prepares the start of Claude in it.

import { forgetActivity } from "./activity.ts";
import { settingsArguments } from "../home/claude-settings.ts";
import { hasCredentials } from "../home/credentials.ts";
import { hasConversation, latestConversation } from "./conversations.ts";
import { inspectContainer } from "../docker/docker.ts";
import { Failure, warnOnFileError } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { inheritOnce } from "../home/inherit.ts";
import type { Log } from "../std/log.ts";
import { offerServers, warnAboutUnavailable } from "../mcp/offer.ts";
import {
  type ConfigVerdict,
  judgeConfigEarly,
  judgeProjectConfig,
} from "../project/config-approval.ts";
import { projectDatabase } from "../project/project.ts";
import { modeArguments, type StartMode } from "../instance/permission-mode.ts";
import {
  type SessionRecord,
  writeSession,
} from "../instance/session-record.ts";
import { workerEnvironment } from "./local-gateway.ts";
import type { Opening, OpenRequest } from "./opening.ts";
import { requireSession, saveSession, undoSave } from "./save.ts";
import {
  type ClaudeStart,
  prepareStart,
  type ReadySession,
  relayUseFor,
  renewCredentials,
  type StartOptions,
} from "./start.ts";
import { hasTerminal } from "./tmux.ts";
import { ensureSessionWorker, type SessionWorker } from "./worker.ts";
import { ensureHome } from "../instance/volumes.ts";
import { insideWorker } from "../instance/paths.ts";

/** Finds or starts the session's worker, and prepares the start of Claude in it. */
export async function readySession(
  given: Instance,
  opening: Opening,
  request: OpenRequest,
  log: Log,
): Promise<ReadySession> {
  const instance = asChosen(given, opening, request, log);
  const { project, session, before } = opening;
  const env = await workerEnvironment(instance, request.env, request);
  ensureHome(instance);
  await warnAboutUnavailable(instance, opening.servers, log);
  const judged = await judgeConfigEarly(
    instance,
    opening.workspace().path,
    request.approveConfig,
    log,
    project.path,
  );
  const { worker, start, record } = await findOrStartWorker(
    instance,
    opening,
    request,
    log,
  );
  // Left by a Claude that was killed with its worker.
  if (start !== "running") forgetActivity(opening.claudeHome);
  const claudeRuns = start === "running" &&
    await hasTerminal(instance.docker, worker.id);
  if (claudeRuns) refuseWithoutEffect(session, request, before);
  let saved = record ?? before;
  if (!record) {
    const save = () => {
      saved = saveSession(instance, opening, { claudeRuns }, log);
    };
    // A running Claude does not need its record.
    await (claudeRuns ? warnOnFileError(log, save) : save());
  }
  // A standalone session needs no port range, because it has its own network.
  const portBase = request.standalone ? undefined : saved?.portBase;
  const mode: StartMode = saved ?? {};
  if (!claudeRuns && !request.permissionMode && mode.permissionMode) {
    log(modeNotice(mode));
  }
  const resumes = !request.fresh && hasConversation(instance, session);
  const container = await inspectContainer(instance.docker, worker.id);
  const started = claudeRuns
    ? await renewStart(instance, opening, {
      mcp: request.mcp,
      container,
      env,
    }, log)
    : await firstStart(instance, { opening, request: { ...request, env } }, {
      container,
      portBase,
      judged,
    }, log);
  return {
    session,
    project: project.path,
    worker: worker.name,
    id: worker.id,
    start,
    command: [
      "claude-session",
      ...(resumes ? resumeArguments(instance, session, saved) : []),
      // First, so that the user's own arguments take precedence.
      ...modeArguments(mode),
      ...started.arguments,
      ...(request.prompt === undefined ? [] : ["--", request.prompt]),
    ],
    env: {
      ...(request.sshAgent ? { SSH_AUTH_SOCK: insideWorker.sshAgent } : {}),
      ...started.env,
      ...(request.standalone
        ? {}
        : { HAL9000_CHROMA_DATABASE: projectDatabase(project.path) }),
      ...(portBase === undefined ? {} : { HAL9000_PORT_BASE: `${portBase}` }),
    },
    resumes,
  };
}

/** A fork begins with the conversation of another session, and continues its own one. */
function resumeArguments(
  instance: Instance,
  session: string,
  saved: SessionRecord | undefined,
): string[] {
  const { forkOf } = saved ?? {};
  const begins = forkOf !== undefined &&
    latestConversation(instance, session) === `${forkOf}.jsonl`;
  return begins ? ["--resume", forkOf, "--fork-session"] : ["--continue"];
}

/** The instance with the network and the package caches that were chosen for the session. */
function asChosen(
  instance: Instance,
  { before }: Opening,
  request: OpenRequest,
  log: Log,
): Instance {
  const { settings } = instance;
  const saved = request.standalone ? undefined : before?.network;
  const network = request.network ?? saved ?? settings.WORKER_NETWORK;
  if (request.network === undefined && network !== settings.WORKER_NETWORK) {
    log(
      `Network: ${network} (chosen for this session; --network chooses another)`,
    );
  }
  const caches = request.caches ?? before?.caches ?? settings.WORKER_CACHES;
  return {
    ...instance,
    settings: { ...settings, WORKER_NETWORK: network, WORKER_CACHES: caches },
  };
}

/** Renews the files of a running Claude, and returns how it could be started again. */
async function renewStart(
  instance: Instance,
  { claudeHome, project }: Opening,
  { mcp, ...facts }:
    & Pick<OpenRequest, "mcp">
    & Pick<StartOptions, "container" | "env">,
  log: Log,
): Promise<ClaudeStart> {
  if (mcp !== undefined) {
    // The file is not changed now: the running CLI may be writing it.
    log("The session is running: the MCP servers change at its next start");
  }
  // Starts Claude again, without the project's settings, if it exits before the caller
  // attaches and its files cannot be written.
  let started: ClaudeStart = { arguments: settingsArguments(false), env: {} };
  await warnOnFileError(log, () => {
    started = renewCredentials(
      instance,
      { claudeHome, owner: project },
      facts,
    );
  });
  return started;
}

/** Writes the files of a Claude that does not run yet, and returns how it is started. */
async function firstStart(
  instance: Instance,
  { opening, request }: { opening: Opening; request: OpenRequest },
  { judged, ...facts }: Pick<StartOptions, "container" | "portBase"> & {
    judged: ConfigVerdict | undefined;
  },
  log: Log,
): Promise<ClaudeStart> {
  const { claudeHome, project, servers } = opening;
  const { approveConfig, claudeArguments, env } = request;
  if (!hasCredentials(instance, claudeHome, env)) {
    log(
      "warning: not logged in: Claude asks for it. " +
        "To log in for all sessions: claudy login",
    );
  }
  // Also in a running worker: the command that started it may have been killed.
  offerServers(instance, claudeHome, project, servers);
  const verdict = judged ??
    await judgeProjectConfig(
      instance,
      opening.workspace().path,
      approveConfig,
      log,
      project.path,
    );
  return prepareStart(instance, { claudeHome, owner: project }, {
    ...facts,
    verdict,
    env,
    arguments: claudeArguments,
  }, log);
}

/** A mode that was not asked for now may surprise: some of them ask for nothing. */
function modeNotice({ permissionMode, permissionModeFrom }: StartMode): string {
  const origin = permissionModeFrom === "setting"
    ? "set in PERMISSION_MODES"
    : "chosen for this session; --permission-mode chooses another";
  return `Permission mode: ${permissionMode} (${origin})`;
}

/** Throws if the request contains what takes effect only when Claude starts. */
function refuseWithoutEffect(
  session: string,
  { fresh, claudeArguments, permissionMode }: OpenRequest,
  before: SessionRecord | undefined,
): void {
  const what = fresh
    ? "--new has"
    : claudeArguments.length > 0
    ? "arguments of Claude have"
    : permissionMode && permissionMode !== before?.permissionMode
    ? `permission mode ${permissionMode} has`
    : undefined;
  if (!what) return;
  throw new Failure(
    "busy",
    `Session "${session}" is running: ${what} no effect`,
    {
      hint: `Stop it first: claudy stop ${session}`,
    },
  );
}

/** Also returns the session's record, if it was saved for a new worker. */
async function findOrStartWorker(
  instance: Instance,
  opening: Opening,
  request: OpenRequest,
  log: Log,
): Promise<SessionWorker & { record: SessionRecord | undefined }> {
  const { session, project, before, profile, isCopy } = opening;
  let record: SessionRecord | undefined;
  try {
    const found = await ensureSessionWorker(instance, {
      session,
      project: opening.workspace(),
      copyOf: isCopy ? project.path : undefined,
      profile,
      options: {
        ...request,
        relay: relayUseFor(instance, request.env),
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
        record = saveSession(instance, opening, { claudeRuns: false }, log);
        const inherited = { session, project, request: request.inherit };
        inheritOnce(instance, inherited, log);
      },
    }, log);
    if (record) await requireSession(instance, session, found.worker, log);
    return { ...found, record };
  } catch (error) {
    if (record) await undoSave(instance, opening, record, log);
    throw error;
  }
}
