// The start of Claude in a worker: the files that it reads, its arguments and its
// environment.

import { layOutSettings } from "../home/claude-settings.ts";
import { layOutCredentials } from "../home/credentials.ts";
import { type Docker, environmentOf } from "../docker/docker.ts";
import type { Instance } from "../instance/instance.ts";
import type { ConfigVerdict } from "../project/project-config.ts";
import type { Owner } from "../std/owned.ts";
import { writeContext } from "./context.ts";

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
