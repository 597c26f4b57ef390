// Starts Claude in a worker: writes the files that it reads, and builds its arguments
// and environment.

import { layOutSettings, settingsArguments } from "../home/claude-settings.ts";
import { withoutProxies } from "../home/caller-variables.ts";
import { credentialFor, layOutCredentials } from "../home/credentials.ts";
import {
  canUseRelay,
  keptRelay,
  relayedEnv,
  type Relaying,
} from "../home/relayed.ts";
import { label } from "../instance/labels.ts";
import { readRecord } from "../instance/record.ts";
import type { RelayUse } from "../relay/names.ts";
import { isolatedMode } from "../worker/network.ts";
import { type Docker, environmentOf } from "../docker/docker.ts";
import { execIn } from "../docker/exec.ts";
import type { Instance } from "../instance/instance.ts";
import { Failure } from "../std/errors.ts";
import type { ConfigVerdict } from "../project/config-approval.ts";
import type { Log } from "../std/log.ts";
import type { Owner } from "../std/owned.ts";
import { writeContext } from "./context.ts";
import type { SessionWorker } from "./worker.ts";
import { hasTerminal, tmux } from "./tmux.ts";

export interface StartOptions {
  container: Docker.ContainerInspectInfo | undefined;
  /** First port of the session's range; undefined if it has none. */
  portBase?: number | undefined;
  /** Whether the project's configuration takes effect. */
  verdict: ConfigVerdict;
  /** The caller's environment. */
  env: NodeJS.ProcessEnv;
  /** Arguments for Claude, given by the user. */
  arguments: string[];
}

export interface ClaudeStart {
  arguments: string[];
  env: Record<string, string>;
}

/** A session with a running worker; Claude may or may not be running in it. */
export interface ReadySession {
  session: string;
  project: string;
  worker: string;
  id: string;
  start: SessionWorker["start"];
  /** The command that starts Claude. */
  command: string[];
  env: Record<string, string>;
  /** Whether the command resumes a conversation. */
  resumes: boolean;
}

/** How the Claude of a new worker will reach the API. */
export function relayUseFor(
  instance: Pick<Instance, "home" | "settings">,
  env: NodeJS.ProcessEnv,
): RelayUse {
  if (instance.settings.HAL9000_RELAY === "off") return "off";
  if (canUseRelay(env)) return "on";
  return credentialFor(instance, env) === "login" ? "off" : "any";
}

/** Writes the files that Claude reads at its start into a Claude home. */
export function prepareStart(
  instance: Instance,
  { claudeHome, owner }: { claudeHome: string; owner: Owner },
  options: StartOptions,
  log: Log,
): ClaudeStart {
  const { container, portBase, verdict } = options;
  const relaying = relayingOf(instance, container, options.env);
  const env = relaying ? relayedEnv(options.env) : options.env;
  const signIn = layOutCredentials(
    instance,
    claudeHome,
    owner,
    forNetwork(container, env),
    { relaying, isolated: isIsolated(container) },
  );
  if (signIn.left.length > 0) {
    log(`Not passed to Claude: ${signIn.left.join("; ")}`);
  }
  const passed = passedVariables(env);
  const claudeArguments = layOutSettings(claudeHome, owner, {
    signIn,
    env: { ...environmentOf(container), ...passed },
    ...verdict,
    arguments: options.arguments,
  });
  const { approved } = verdict;
  writeContext(instance, claudeHome, owner, { container, portBase, approved });
  return { arguments: claudeArguments, env: { ...signIn.env, ...passed } };
}

/**
 * Renews the credentials of a running Claude. Its settings stay: Claude reads changes of
 * them. The result starts it again if it exits now, without the project's settings.
 */
export function renewCredentials(
  instance: Instance,
  { claudeHome, owner }: { claudeHome: string; owner: Owner },
  { container, env: given }: Pick<StartOptions, "container" | "env">,
): ClaudeStart {
  const relaying = relayingOf(instance, container, given);
  // This caller could not have started it so, but what runs has no other credential.
  const kept = !relaying && isRelayed(instance, container)
    ? keptRelay(instance, claudeHome)
    : undefined;
  if (kept) return { arguments: settingsArguments(false), env: kept };
  const env = relaying ? relayedEnv(given) : given;
  const signIn = layOutCredentials(
    instance,
    claudeHome,
    owner,
    forNetwork(container, env),
    { claudeRuns: true, relaying, isolated: isIsolated(container) },
  );
  return {
    arguments: settingsArguments(false),
    env: { ...signIn.env, ...passedVariables(env) },
  };
}

/** Undefined for a worker without the relay, and a caller who cannot use it. */
function relayingOf(
  instance: Instance,
  container: Docker.ContainerInspectInfo | undefined,
  env: NodeJS.ProcessEnv,
): Relaying | undefined {
  if (!isRelayed(instance, container) || !canUseRelay(env)) return undefined;
  return { env, isolated: isIsolated(container) };
}

/** Also for a container that is not known: it gets no secrets that it need not have. */
function isIsolated(
  container: Docker.ContainerInspectInfo | undefined,
): boolean {
  return !container || container.HostConfig.NetworkMode === isolatedMode;
}

function isRelayed(
  instance: Instance,
  container: Docker.ContainerInspectInfo | undefined,
): container is Docker.ContainerInspectInfo {
  if (container?.Config.Labels[label.relay] === undefined) return false;
  return !readRecord(instance, container.Name.slice(1))?.unrelayed;
}

/** An isolated worker reaches only the egress proxy, not the caller's. */
function forNetwork(
  container: Docker.ContainerInspectInfo | undefined,
  env: NodeJS.ProcessEnv,
): NodeJS.ProcessEnv {
  return container && isIsolated(container) ? withoutProxies(env) : env;
}

/** The caller's variables that are passed to Claude. */
function passedVariables(env: NodeJS.ProcessEnv): Record<string, string> {
  const names = ["ANTHROPIC_BASE_URL", "ANTHROPIC_MODEL", "COLORTERM"];
  return Object.fromEntries(
    names.flatMap((name) => env[name] ? [[name, env[name]]] : []),
  );
}

/** Claude was already running, resumed its conversation, or started a new one. */
export type Conversation = "running" | "resumed" | "new";

/** Starts Claude in the background if it is not running. */
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
  if (await hasTerminal(docker, id)) return "running"; // another process started it
  throw new Failure("failed", `Cannot start Claude: ${output.trim()}`, {
    hint: `Open a shell in its worker: claudy attach --shell ${ready.session}`,
  });
}
