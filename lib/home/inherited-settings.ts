// The host's Claude settings as a session can use them: what names the host's
// files or runs its programs would not work in a worker.

import { isLocalUrl } from "../std/local-url.ts";
import { insideWorker } from "../instance/paths.ts";

export interface Taken<T> {
  value: T;
  /** What was left out, and why. */
  left: string[];
}

export interface TakeOptions {
  /** The host's Claude home, which is the session's own in the worker. */
  claudeHome: string;
  /** The home of whoever's it is. */
  userHome: string;
  inheritHooks: boolean;
}

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** Settings that are commands, run on the host. */
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

/** Variables that sign in: those come from what is kept for the instance. */
const credentials =
  /^(ANTHROPIC_(API_KEY|AUTH_TOKEN)|CLAUDE_CODE_OAUTH_TOKEN)$/;

/** What a session takes of settings.json. */
export function takeSettings(
  settings: { [key: string]: Json },
  options: TakeOptions,
): Taken<{ [key: string]: Json }> {
  const left: string[] = [];
  const kept: { [key: string]: Json } = {};
  for (const [key, value] of Object.entries(settings)) {
    if (commands.includes(key)) {
      left.push(`${key}: it runs a program of the host`);
    } else if (key === "hooks" && !options.inheritHooks) {
      left.push("hooks: they run programs of the host (--inherit-hooks)");
    } else if (key === "env" && isObject(value)) {
      kept[key] = withoutCredentials(value, left);
    } else {
      kept[key] = value;
    }
  }
  return { value: onHostPaths(kept, options, "", left) ?? {}, left };
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

/** What a session takes of the servers that the host's CLI knows for its user. */
export function takeMcpServers(
  servers: { [key: string]: Json },
): Taken<{ [key: string]: Json }> {
  const left: string[] = [];
  const kept: { [key: string]: Json } = {};
  for (const [name, server] of Object.entries(servers)) {
    const url = isObject(server) ? server["url"] : undefined;
    if (typeof url !== "string" || isLocalUrl(url)) {
      left.push(`MCP server ${name}: it is the host's (claudy mcp list)`);
    } else {
      kept[name] = server;
    }
  }
  return { value: kept, left };
}

/** The host's Claude home becomes the worker's; other paths of its user go. */
function onHostPaths<T extends Json>(
  value: T,
  options: TakeOptions,
  at: string,
  left: string[],
): T | undefined {
  if (typeof value === "string") {
    const here = moved(value, options);
    if (!here.includes(`${options.userHome}/`)) return here as T;
    left.push(`${at}: it names a path of the host`);
    return undefined;
  }
  const each = (item: Json, key: string | number) =>
    onHostPaths(item, options, at === "" ? `${key}` : `${at}.${key}`, left);
  if (Array.isArray(value)) {
    return value.map(each).filter((item) => item !== undefined) as T;
  }
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, each(item, key)])
      .filter(([, item]) => item !== undefined),
  ) as T;
}

/** Text with the host's Claude home as the worker has it. */
export function moved(
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
