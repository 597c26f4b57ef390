// Filters the host's Claude settings for a session: leaves out settings that refer to
// files or programs of the host, which do not exist in a worker.

import { isLocalUrl } from "../std/local-url.ts";
import { setsPrograms } from "../project/project-config.ts";
import { insideWorker } from "../instance/paths.ts";

export interface Taken<T> {
  value: T;
  /** What was left out, and why. */
  left: string[];
}

export interface TakeOptions {
  /** The host's Claude home; its paths become those of the worker's. */
  claudeHome: string;
  /** Home directory of its user. */
  userHome: string;
  inheritHooks: boolean;
  /** Whether to take what runs programs or sets permissions, besides hooks. */
  inheritPrograms: boolean;
}

/** E.g. enabledMcpjsonServers, or skipDangerousModePermissionPrompt. */
const relatedToPrograms = /mcp|plugin|permission/i;

/** Why something is left out of settings that sessions could write. */
export const runsPrograms =
  "it runs programs or sets what may run (see --inherit-hooks)";

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** Settings whose value is a command. */
const commands = [
  "apiKeyHelper",
  "awsAuthRefresh",
  "awsCredentialExport",
  "gcpAuthRefresh",
  "otelHeadersHelper",
  "proxyAuthHelper",
  "statusLine",
  "fileSuggestion",
];

/** Credentials: sessions get those stored for the instance instead. */
const credentials =
  /^(ANTHROPIC_(API_KEY|AUTH_TOKEN)|CLAUDE_CODE_OAUTH_TOKEN)$/;

/** The part of settings.json that a session inherits. */
export function takeSettings(
  settings: { [key: string]: Json },
  options: TakeOptions,
): Taken<{ [key: string]: Json }> {
  const left: string[] = [];
  const kept: { [key: string]: Json } = {};
  for (const [key, value] of Object.entries(settings)) {
    if (commands.includes(key)) {
      left.push(`${key}: it runs a program on the host`);
    } else if (key === "hooks" && !options.inheritHooks) {
      left.push("hooks: they run programs on the host (see --inherit-hooks)");
    } else if (
      !options.inheritPrograms &&
      (setsPrograms(key, value) || relatedToPrograms.test(key))
    ) {
      left.push(`${key}: ${runsPrograms}`);
    } else if (key === "env" && isObject(value)) {
      kept[key] = withoutCredentials(value, left);
    } else {
      kept[key] = value;
    }
  }
  return { value: rewritePaths(kept, options, "", left) ?? {}, left };
}

function withoutCredentials(
  env: { [key: string]: Json },
  left: string[],
): { [key: string]: Json } {
  return Object.fromEntries(
    Object.entries(env).filter(([name]) => {
      if (!credentials.test(name)) return true;
      left.push(`env.${name}: see claudy login`);
      return false;
    }),
  );
}

/** The user-scope MCP servers of the host that a session inherits: remote ones. */
export function takeMcpServers(
  servers: { [key: string]: Json },
  { inheritPrograms }: Pick<TakeOptions, "inheritPrograms">,
): Taken<{ [key: string]: Json }> {
  const left: string[] = [];
  const kept: { [key: string]: Json } = {};
  for (const [name, server] of Object.entries(servers)) {
    const url = isObject(server) ? server["url"] : undefined;
    if (typeof url !== "string" || isLocalUrl(url)) {
      left.push(
        `MCP server ${name}: it runs on the host (see claudy mcp list)`,
      );
    } else if (!inheritPrograms) {
      left.push(`MCP server ${name}: ${runsPrograms}`);
    } else {
      kept[name] = server;
    }
  }
  return { value: kept, left };
}

/**
 * Replaces the host's Claude home by the worker's. Leaves out values with other paths
 * below the user's home.
 */
function rewritePaths<T extends Json>(
  value: T,
  options: TakeOptions,
  at: string,
  left: string[],
): T | undefined {
  if (typeof value === "string") {
    const rewritten = toWorkerPaths(value, options);
    if (!rewritten.includes(`${options.userHome}/`)) return rewritten as T;
    left.push(`${at}: it contains a path of the host`);
    return undefined;
  }
  const each = (item: Json, key: string | number) =>
    rewritePaths(item, options, at === "" ? `${key}` : `${at}.${key}`, left);
  if (Array.isArray(value)) {
    return value.map(each).filter((item) => item !== undefined) as T;
  }
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, each(item, key)])
      .filter(([, item]) => item !== undefined),
  ) as T;
}

/** Replaces the host's Claude home in a text by the worker's. */
export function toWorkerPaths(
  text: string,
  { claudeHome }: Pick<TakeOptions, "claudeHome">,
): string {
  const literal = claudeHome.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const whole = new RegExp(`${literal}(?=/|$|["'\\s])`, "g");
  return text.replaceAll(whole, insideWorker.claudeHome);
}

function isObject(value: Json | undefined): value is { [key: string]: Json } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
