// Opens the session of a project and attaches this terminal to it.

import type { Io } from "../cli/io.ts";
import { refuseWithoutTerminal } from "../cli/options.ts";
import { inheritRequest } from "../home/inherit.ts";
import { openInstance } from "../instance/open.ts";
import { readySession } from "../session/open.ts";
import { startSession } from "../session/start.ts";
import { Failure } from "../std/errors.ts";
import { didYouMean } from "../std/nearest.ts";
import { offerDaemon } from "./daemon.ts";
import { examineAll } from "./doctor.ts";
import { refuseKeyAsArgument, setUp } from "./login.ts";
import { showSession } from "./sessions.ts";
import {
  type McpChoice,
  mcpChoice,
  profileChoice,
  type ProfileOptions,
} from "./start-options.ts";
import { approveConfig, repositoryConsent } from "./trust.ts";

export interface OpenOptions extends ProfileOptions, McpChoice {
  name?: string;
  detach?: boolean;
  shell?: boolean;
  new?: boolean;
  legacy?: boolean;
  claudeHome?: unknown;
  inheritHooks?: boolean;
  sshAgent?: boolean;
  setup?: boolean;
  apiKey?: unknown;
  verify?: boolean;
  diagnose?: boolean;
  allowAnyPath?: boolean;
  trustProject?: boolean;
  allowWorktree?: boolean;
  yes?: boolean;
  json?: boolean;
  "--"?: string[];
}

export async function openProject(
  io: Io,
  { directory, options, commands }: {
    directory: string | undefined;
    options: OpenOptions;
    commands: string[];
  },
): Promise<number | undefined> {
  const { env } = io;
  refuseKeyAsArgument(options.apiKey);
  if (options.setup) return await setUp(io);
  if (options.verify || options.diagnose) return await examineAll(io, options);
  if (options.json && !options.detach) {
    throw new Failure("usage", "--json needs --detach");
  }
  if (!options.detach) {
    refuseWithoutTerminal(io, "Pass --detach to start it in the background.");
  }
  if (options.legacy) {
    io.log(
      "warning: --legacy is deprecated: the container has no ChromaDB and " +
        "no pool. To migrate, see scripts/migrate.ts.",
    );
  }
  const instance = await openInstance(env, io.log);
  if (!options.legacy) await offerDaemon(io, instance, options.yes);
  const ready = await readySession(instance, {
    directory: directory ?? ".",
    cwd: io.cwd(),
    name: options.name,
    standalone: options.legacy ?? false,
    allowAnyPath: options.allowAnyPath ?? false,
    repository: repositoryConsent(io, options.allowWorktree),
    fresh: options.new ?? false,
    inherit: inheritRequest(instance, env, options),
    sshAgent: options.sshAgent ? agentSocket(env) : undefined,
    profile: profileChoice(options),
    mcp: mcpChoice(options),
    claudeArguments: options["--"] ?? [],
    approveConfig: approveConfig(io, options.trustProject, options.detach),
    env,
  }, io.log).catch((error) => {
    throw suggestCommand(error, directory, commands);
  });
  const { session, project, worker, id, start } = ready;
  if (options.detach) {
    const conversation = await startSession(instance, ready);
    const opened = { session, project, worker, id, conversation, start };
    io.answer(opened, session, options.json);
    return;
  }
  if (options.shell) await startSession(instance, ready);
  const code = await showSession(
    io,
    instance,
    { name: worker, id },
    options.shell ? { what: "shell" } : { what: "session", ...ready },
  );
  if (code === 0) io.log(`Reattach with: claudy attach ${session}`);
  return code;
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

/** A missing directory may be a mistyped command: suggests the most similar one. */
function suggestCommand(
  error: unknown,
  directory: string | undefined,
  names: string[],
) {
  const plain = directory !== undefined && /^[a-z]+$/.test(directory);
  if (!(error instanceof Failure) || error.kind !== "notFound" || !plain) {
    return error;
  }
  const hint = didYouMean(directory, names).trim();
  return new Failure(error.kind, error.message, {
    hint: hint || error.hint,
    cause: error,
  });
}
