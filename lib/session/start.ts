// The start of Claude in a worker: the files that it reads, its arguments and its
// environment.

import { layOutSettings } from "../home/claude-settings.ts";
import { layOutCredentials } from "../home/credentials.ts";
import { type Docker, environmentOf } from "../docker/docker.ts";
import { execIn } from "../docker/exec.ts";
import type { Instance } from "../instance/instance.ts";
import { Failure } from "../std/errors.ts";
import type { ConfigVerdict } from "../project/project-config.ts";
import type { Owner } from "../std/owned.ts";
import { writeContext } from "./context.ts";
import type { SessionWorker } from "./worker.ts";
import { hasTerminal, tmux } from "./tmux.ts";

export interface StartOptions {
  container: Docker.ContainerInspectInfo | undefined;
  /** The first port of its range; undefined if it has none. */
  portBase?: number | undefined;
  /** Which configuration of the project takes effect. */
  verdict: ConfigVerdict;
  /** The caller's environment. */
  env: NodeJS.ProcessEnv;
  /** The user's arguments for Claude. */
  arguments: string[];
}

export interface ClaudeStart {
  arguments: string[];
  env: Record<string, string>;
}

/** A session that has its worker; Claude may be running in it or not. */
export interface ReadySession {
  session: string;
  project: string;
  worker: string;
  id: string;
  start: SessionWorker["start"];
  /** Starts Claude, if it is not running. */
  command: string[];
  env: Record<string, string>;
  /** Whether the command resumes a conversation. */
  resumes: boolean;
}

/** Writes what Claude reads at its start into a Claude home. */
export function prepareStart(
  instance: Instance,
  { claudeHome, owner }: { claudeHome: string; owner: Owner },
  options: StartOptions,
): ClaudeStart {
  const { container, portBase, verdict } = options;
  const signIn = layOutCredentials(instance, claudeHome, owner, options.env);
  const passed = passedOn(options.env);
  const claudeArguments = layOutSettings(claudeHome, owner, {
    signIn,
    env: { ...environmentOf(container), ...passed },
    ...verdict,
    arguments: options.arguments,
  });
  const { approved } = verdict;
  const around = { container, portBase, approved };
  writeContext(instance, claudeHome, owner, around);
  return { arguments: claudeArguments, env: { ...signIn.env, ...passed } };
}

/** The variables of the caller that Claude gets, too. */
function passedOn(env: NodeJS.ProcessEnv): Record<string, string> {
  const names = ["ANTHROPIC_BASE_URL", "ANTHROPIC_MODEL", "COLORTERM"];
  return Object.fromEntries(
    names.flatMap((name) => env[name] ? [[name, env[name]]] : []),
  );
}

/** Claude was running, resumed its conversation, or began a new one. */
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
