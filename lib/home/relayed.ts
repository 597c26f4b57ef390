// Sessions that use the relay: their workers get a placeholder, and the relay gets what to
// send in its place.

import { mkdirSync } from "node:fs";
import { join, relative } from "node:path";
import process from "node:process";
import { hostNetwork } from "../egress/upstream.ts";
import type { Instance } from "../instance/instance.ts";
import { insideWorker } from "../instance/paths.ts";
import { readParentState } from "../instance/parent-state.ts";
import { readAuthorities } from "../relay/authority.ts";
import {
  type Grant,
  type GrantKind,
  newPlaceholder,
  readGrant,
  writeGrant,
} from "../relay/grant.ts";
import {
  apiHost,
  gatewayUrl,
  isPlaceholder,
  relayPort,
} from "../relay/names.ts";
import { inDirectory } from "../std/directory.ts";
import { Failure } from "../std/errors.ts";
import { isLocalUrl } from "../std/local-url.ts";
import { ensureOwner, type Owner, replaceFile } from "../std/owned.ts";
import { clearPath, plainText } from "../std/plain-file.ts";
import { callerFile, providerOf } from "./caller-variables.ts";
import { readLogin } from "./login.ts";

/**
 * Whether a session of this caller can use the relay. A cloud provider's requests are signed
 * by the CLI, and a gateway on the workers' localhost is one that the relay cannot reach.
 */
export function canUseRelay(env: NodeJS.ProcessEnv): boolean {
  const base = env["ANTHROPIC_BASE_URL"];
  return providerOf(env) === undefined &&
    (!base || (URL.canParse(base) && !isLocalUrl(base)));
}

export interface Relaying {
  /** The whole environment of the caller. */
  env: NodeJS.ProcessEnv;
  isolated: boolean;
}

/** The caller's environment for a CLI that uses the relay. */
export function relayedEnv(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const { ANTHROPIC_BASE_URL: _, ...others } = env;
  return baseUrlOf(env) === null
    ? others
    : { ...others, ANTHROPIC_BASE_URL: gatewayUrl };
}

function baseUrlOf(env: NodeJS.ProcessEnv): string | null {
  const base = env["ANTHROPIC_BASE_URL"];
  if (!base || new URL(base).origin === `https://${apiHost}`) return null;
  return base;
}

/** Variables of a CLI that goes on with its grant; undefined if it has none. */
export function keptRelay(
  instance: Pick<Instance, "home">,
  claudeHome: string,
): Record<string, string> | undefined {
  const grant = readGrant(instance, relative(instance.home.home, claudeHome));
  if (!grant) return undefined;
  return {
    ...(grant.kind === "login"
      ? { CLAUDE_SECURESTORAGE_CONFIG_DIR: relayedLogin }
      : {}),
    ...(grant.baseUrl === null ? {} : { ANTHROPIC_BASE_URL: gatewayUrl }),
  };
}

type Chosen = Exclude<GrantKind, "own"> | undefined;

/** Writes the grant of a session whose Claude is about to start, or runs. */
export function grantRelay(
  instance: Pick<Instance, "home" | "owner">,
  claudeHome: string,
  { chosen, keyFile, relaying, claudeRuns }: {
    chosen: Chosen;
    /** The key of the last start, in the Claude home. */
    keyFile: string;
    relaying: Relaying;
    claudeRuns: boolean;
  },
): Grant {
  const { env, isolated } = relaying;
  const home = relative(instance.home.home, claudeHome);
  const before = readGrant(instance, home);
  const running = claudeRuns ? before : undefined;
  // It has its placeholder, in the form of its kind.
  if (running && formOf(running.kind) !== formOf(chosen ?? "own")) {
    return running;
  }
  const own = {
    caller: env["ANTHROPIC_API_KEY"],
    gateway: env["ANTHROPIC_AUTH_TOKEN"],
  };
  let kind: GrantKind = chosen ?? "own";
  let credential = kind === "caller" || kind === "gateway"
    ? own[kind] ?? null
    : null;
  if (kind === "own") {
    // Without any credentials, the session keeps the key from its last start.
    credential = lastKey(claudeHome, keyFile, before);
    if (credential !== null) kind = "caller";
  }
  const { upstream } = hostNetwork(env, () => {});
  const grant: Grant = {
    version: 1,
    home,
    placeholder: running?.placeholder ?? newPlaceholder(),
    kind,
    credential,
    // Those of the caller who started it, unless they were removed by a logout.
    baseUrl: running ? running.baseUrl : baseUrlOf(env),
    headers: running?.headers.length
      ? running.headers
      : headersIn(env["ANTHROPIC_CUSTOM_HEADERS"] ?? ""),
    upstream: running
      ? {
        http: running.upstream.http ?? upstream.http,
        https: running.upstream.https ?? upstream.https,
        noProxy: running.upstream.noProxy || upstream.noProxy,
        ca: running.upstream.ca ?? upstream.ca,
      }
      : upstream,
    isolated,
  };
  writeGrant(instance, grant);
  return grant;
}

function formOf(kind: GrantKind): GrantKind {
  return kind === "caller" ? "key" : kind;
}

/** The key of the session's last start; null if there was none. */
export function lastKey(
  claudeHome: string,
  keyFile: string,
  before: Grant | undefined,
): string | null {
  if (before?.kind === "caller") return before.credential;
  try {
    const key = plainText(join(claudeHome, keyFile), { maxBytes: 4096 });
    return key && !isPlaceholder(key) ? key.trim() : null;
  } catch {
    return null; // not a file
  }
}

/** One `Name: value` a line. */
function headersIn(text: string): [string, string][] {
  return text.split(/\r?\n/).flatMap((line): [string, string][] => {
    const [, name, value] = /^\s*([\w!#$%&'*+.^`|~-]+)\s*:\s*(.*?)\s*$/
      .exec(line) ?? [];
    return name === undefined || value === undefined ? [] : [[name, value]];
  });
}

/** The directory of a placeholder login, in a Claude home. */
const loginDirectory = "hal9000-login";

export const relayedLogin = `${insideWorker.claudeHome}/${loginDirectory}`;

/** After all sessions: the CLI must not try to refresh it. */
const neverMs = Date.UTC(2100, 0);

/** Writes the instance's login with the placeholder as its access token. */
export function layOutLogin(
  { home }: Pick<Instance, "home">,
  claudeHome: string,
  user: Owner,
  placeholder: string,
): void {
  const real = readLogin(home)?.claudeAiOauth;
  const login = {
    claudeAiOauth: {
      accessToken: placeholder,
      refreshToken: "",
      expiresAt: neverMs,
      // Nothing else, which may be secret.
      scopes: real?.scopes,
      subscriptionType: real?.["subscriptionType"],
      rateLimitTier: real?.["rateLimitTier"],
    },
  };
  const written = inDirectory(claudeHome, (directory) => {
    const path = directory.at(loginDirectory);
    // The worker may have put something else there.
    if (directory.stat(loginDirectory)?.kind !== "directory") {
      clearPath(path);
      mkdirSync(path, { mode: 0o700 });
    }
    const inside = directory.enter(loginDirectory);
    if (!inside) return false;
    try {
      if (process.getuid?.() === 0) ensureOwner(inside.at("."), user);
      const file = inside.at(".credentials.json");
      replaceFile(file, JSON.stringify(login), user, { sync: false });
    } finally {
      inside.close();
    }
    return true;
  });
  if (!written) {
    throw new Failure("failed", `Cannot write the login into ${claudeHome}`);
  }
}

/** A file for NODE_EXTRA_CA_CERTS: the caller's certificates, and those of the relay. */
export function trustedFile(
  { home }: Pick<Instance, "home">,
  callers: Uint8Array | undefined,
): { name: string; bytes: Uint8Array } {
  const authorities = readAuthorities(home);
  if (authorities.length === 0) {
    throw noRelay("The relay has no certificate yet");
  }
  const text = [
    ...(callers ? [new TextDecoder().decode(callers)] : []),
    ...authorities.map(({ cert }) => cert),
  ].join("\n");
  const name = `${callerFile}NODE_EXTRA_CA_CERTS`;
  return { name, bytes: new TextEncoder().encode(`${text}\n`) };
}

/** Throws a `failed` Failure if a new worker could not use it, as after an upgrade. */
export function requireRelay({ home }: Pick<Instance, "home">): void {
  const { shared } = readParentState({ home }) ?? {};
  const ports = [...shared?.open ?? [], ...shared?.taken ?? []];
  // Empty for a moment after the parent's start.
  if (ports.length > 0 && !ports.includes(relayPort)) {
    throw noRelay("The parent was started without the relay");
  }
  if (readAuthorities(home).length === 0) {
    throw noRelay("The relay has no certificate yet");
  }
}

const noRelay = (message: string) =>
  new Failure("failed", message, {
    hint: "Restart the parent: claudy daemon restart. " +
      "Or give workers the credentials: HAL9000_RELAY=off",
  });
