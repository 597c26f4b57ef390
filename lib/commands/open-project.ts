// Opens the session of a project and attaches this terminal to it.

import type { Io } from "../cli/io.ts";
import { flagsOf, refuseWithoutTerminal } from "../cli/options.ts";
import { existsSync, lstatSync } from "node:fs";
import { join, resolve } from "node:path";
import { hasCredentials } from "../home/credentials.ts";
import { inheritRequest } from "../home/host-config.ts";
import { sessionHome } from "../home/worker-home.ts";
import type { Instance } from "../instance/instance.ts";
import { openInstance } from "../instance/open.ts";
import { readCliState } from "../session/activity.ts";
import { ensureCopy } from "../session/copy.ts";
import { readySession } from "../session/open.ts";
import {
  checkOpening,
  type Opening,
  type OpenRequest,
} from "../session/opening.ts";
import {
  type Conversation,
  type ReadySession,
  startSession,
} from "../session/start.ts";
import { Failure } from "../std/errors.ts";
import { didYouMean } from "../std/nearest.ts";
import { waitFor } from "../std/wait.ts";
import { offerDaemon } from "./daemon.ts";
import { examineAll } from "./doctor.ts";
import { refuseKeyAsArgument, setUp } from "./login.ts";
import { endingSince, reportEnding, showSession, watchLimits } from "./show.ts";
import {
  copyChoice,
  type CopyOptions,
  type McpChoice,
  mcpChoice,
  permissionChoice,
  type PermissionOptions,
  profileChoice,
  type ProfileOptions,
  startSettings,
} from "./start-options.ts";
import { approveConfig, askDevcontainer, repositoryConsent } from "./trust.ts";

export interface OpenOptions
  extends ProfileOptions, McpChoice, PermissionOptions, CopyOptions {
  name?: string;
  detach?: boolean;
  shell?: boolean;
  new?: boolean;
  on?: unknown;
  legacy?: boolean;
  claudeHome?: unknown;
  inheritHooks?: boolean;
  sshAgent?: boolean;
  setup?: boolean;
  apiKey?: unknown;
  verify?: boolean;
  diagnose?: boolean;
  allowAnyPath?: boolean;
  requireLimits?: boolean;
  unguarded?: boolean;
  network?: unknown;
  caches?: unknown;
  trustProject?: boolean;
  allowWorktree?: boolean;
  yes?: boolean;
  json?: boolean;
}

export async function openProject(
  io: Io,
  { directory, others, options, commands }: {
    directory: string | undefined;
    others: string[];
    options: OpenOptions;
    commands: string[];
  },
): Promise<number | undefined> {
  const { env } = io;
  refuseKeyAsArgument(options.apiKey);
  if (directory !== undefined) refuseUnknownCommand(io, directory, commands);
  if (others.length > 0) {
    const names = others.map((name) => `"${name}"`).join(", ");
    throw new Failure(
      "usage",
      `Expected one directory, got also ${names}`,
      {
        hint: "Quote a path with spaces. To run a prompt: claudy run PROMPT",
      },
    );
  }
  if (options.setup) return await setUp(io);
  if (options.verify || options.diagnose) return await examineAll(io, options);
  if (options.json && !options.detach) {
    throw new Failure("usage", "--json needs --detach", {
      hint: "Pass both: claudy --detach --json",
    });
  }
  if (options.legacy && options.clone) {
    throw new Failure("usage", "--clone and --legacy exclude each other");
  }
  if (options.legacy && options.network !== undefined) {
    throw new Failure("usage", "--legacy and --network exclude each other");
  }
  if (options.legacy) {
    io.log(
      "warning: --legacy is deprecated: the container has no ChromaDB and " +
        "no pool. To migrate: hal9000-migrate",
    );
  }
  const flags = flagsOf({ ...options }, startSettings);
  const instance = await openInstance(env, io.log, flags);
  return await openSession(io, instance, {
    directory: directory ?? ".",
    options,
  });
}

/** A session that was started in the background. */
export interface Opened {
  session: string;
  project: string;
  worker: string;
  id: string;
  conversation: Conversation;
  start: ReadySession["start"];
}

/** Opens the session of a project; all mistakes are reported before anything is started. */
export async function openSession(
  io: Io,
  instance: Instance,
  { directory, options, prompt, answer }: {
    directory: string;
    options: OpenOptions;
    prompt?: string | undefined;
    /** Gets what a detached session prints. @default prints it */
    answer?: (opened: Opened) => void;
  },
): Promise<number | undefined> {
  const { ready, request } = await prepareSession(io, instance, {
    directory,
    options,
    prompt,
    check: () => {
      if (options.detach) return;
      refuseWithoutTerminal(io, "Pass --detach to start it in the background.");
    },
  });
  const { session, project, worker, id, start } = ready;
  if (options.detach) {
    const conversation = await startDetached(io, instance, ready, request);
    const opened = { session, project, worker, id, conversation, start };
    if (answer) answer(opened);
    else io.answer(opened, session, options.json);
    return;
  }
  if (options.shell) await startSession(instance, ready);
  return await showSession(io, instance, { name: session }, {
    worker: { name: worker, id },
    shown: options.shell ? { what: "shell" } : { what: "session", ...ready },
  });
}

/** Finds or starts the worker of a project's session, and prepares the start of Claude. */
export async function prepareSession(
  io: Io,
  instance: Instance,
  { directory, options, prompt, once, check }: {
    directory: string;
    options: OpenOptions;
    prompt?: string | undefined;
    /** For a single command; if the caller does not stop the worker, the parent does. */
    once?: boolean;
    /** Throws if the session cannot be opened; nothing of it is made yet. */
    check: (opening: Opening) => void;
  },
): Promise<{ ready: ReadySession; request: OpenRequest }> {
  const { env } = io;
  const request: OpenRequest = {
    directory,
    cwd: io.cwd(),
    name: options.name,
    standalone: options.legacy ?? false,
    allowAnyPath: options.allowAnyPath ?? false,
    repository: repositoryConsent(io, options.allowWorktree),
    copy: copyChoice(options),
    fresh: options.new ?? false,
    inherit: inheritRequest(instance, env, options),
    sshAgent: options.sshAgent ? agentSocket(env) : undefined,
    profile: profileChoice(
      options,
      askDevcontainer(io, options.trustProject, options.detach),
    ),
    mcp: mcpChoice(options),
    claudeArguments: options["--"] ?? [],
    prompt,
    network: options.network === undefined
      ? undefined
      : instance.settings.WORKER_NETWORK,
    caches: options.caches === undefined
      ? undefined
      : instance.settings.WORKER_CACHES,
    permissionMode: permissionChoice(options),
    approveConfig: approveConfig(io, options.trustProject, options.detach),
    env,
    once,
  };
  const opened = async () => {
    const opening = await checkOpening(instance, request, io.log);
    if (!opening.before) {
      await refuseNameElsewhere(instance, opening.session, env);
    }
    check(opening);
    return opening;
  };
  let opening = await opened();
  if (!options.legacy) await offerDaemon(io, instance, options.yes);
  let undo = await ensureCopy(instance, opening, request, io.log);
  for (; !undo; undo = await ensureCopy(instance, opening, request, io.log)) {
    if (request.name !== undefined) throw nameIsTaken(request.name);
    opening = await opened();
  }
  const ready = await readySession(instance, opening, request, io.log)
    .catch(async (error) => {
      await undo?.();
      throw error;
    });
  return { ready, request };
}

function nameIsTaken(name: string): Failure {
  return new Failure("busy", `Another command opens session "${name}"`, {
    hint: "Try again, or choose another --name.",
  });
}

/** How long Claude takes to show its prompt, or to refuse its arguments, and more. */
const startMs = { plain: 2000, withArguments: 5000 };

/** Starts Claude in the background; throws a Failure if it ends at once. */
async function startDetached(
  io: Io,
  instance: Instance,
  ready: ReadySession,
  { claudeArguments }: OpenRequest,
): Promise<Conversation> {
  const { session, worker: name, id } = ready;
  const since = Date.now();
  const worker = { name, id };
  const reportLimits = await watchLimits(
    io,
    instance,
    { name: session },
    worker,
  );
  const conversation = await startSession(instance, ready);
  if (conversation === "running") return conversation;
  const claudeHome = join(instance.home.home, sessionHome(session));
  const deadline = since +
    (claudeArguments.length > 0 ? startMs.withArguments : startMs.plain);
  const isDecided = () =>
    Date.now() > deadline || readCliState(claudeHome) !== undefined ||
    endingSince(instance, session, since) !== undefined;
  await waitFor(isDecided, { for: "Claude", timeoutMs: 10_000 });
  const ending = endingSince(instance, session, since);
  if (ending) {
    const ranOut = ending.exitCode !== 0 && await reportLimits();
    reportEnding(io, session, ending, { ranOut });
  } else if (
    readCliState(claudeHome) === undefined &&
    hasCredentials(instance, claudeHome, io.env) // else it asks for them
  ) {
    io.log(
      `Claude is not ready yet. To see what it shows: claudy attach ${session}`,
    );
  }
  return conversation;
}

function agentSocket(env: NodeJS.ProcessEnv): string {
  const socket = env["SSH_AUTH_SOCK"];
  if (socket) return socket;
  throw new Failure(
    "notFound",
    "There is no ssh-agent: SSH_AUTH_SOCK is not set",
    {
      hint: "Start one: eval $(ssh-agent); ssh-add",
    },
  );
}

/** A single word without such a directory is taken for a mistyped command. */
function refuseUnknownCommand(io: Io, word: string, commands: string[]): void {
  // Other errors, as for a name that is too long, are reported for the project.
  if (word.includes("/") || word.length > 200) return;
  if (lstatSync(resolve(io.cwd(), word), { throwIfNoEntry: false })) return;
  throw new Failure(
    "notFound",
    `"${word}" is neither a command nor a directory`,
    {
      hint: `${didYouMean(word, commands)}` +
        "See claudy --help. For the sessions: claudy ls",
    },
  );
}

/** Throws a `busy` Failure if another machine had a session of this name at the last list. */
async function refuseNameElsewhere(
  instance: Instance,
  session: string,
  env: NodeJS.ProcessEnv,
): Promise<void> {
  // Loaded for those who have hosts.
  if (!existsSync(instance.home.hosts)) return;
  const { hostThatHad } = await import("../hosts/elsewhere.ts");
  const host = hostThatHad(instance, session, env);
  if (host === undefined) return;
  throw new Failure(
    "busy",
    `There is a session "${session}" on host "${host}"`,
    { hint: "Choose another --name." },
  );
}
