// Credentials of sessions: stored for the instance, or from the caller's environment. A
// session gets them as files in its Claude home, never as variables of its container.

import { lstatSync, readFileSync, rmSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import {
  callerFile,
  callerVariable,
  type CallerVariables,
  callerVariables,
  providerOf,
} from "./caller-variables.ts";
import { inDirectory } from "../std/directory.ts";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { isLoggedIn } from "./login.ts";
import { untilNextStart, writeSecrets } from "./named-secrets.ts";
import { localHosts } from "../egress/variables.ts";
import {
  grantRelay,
  lastKey,
  layOutLogin,
  relayedLogin,
  type Relaying,
  trustedFile,
} from "./relayed.ts";
import {
  forgetGrants,
  type Grant,
  type GrantKind,
  readGrant,
  takeGrant,
} from "../relay/grant.ts";
import { apiHost, isPlaceholder } from "../relay/names.ts";
import { type Owner, replaceFile, writeAtomic } from "../std/owned.ts";
import type { HomePaths } from "../instance/paths.ts";
import { clearPath, plainText } from "../std/plain-file.ts";
import { insideWorker } from "../instance/paths.ts";

type Home = Pick<Instance, "home" | "owner">;

/**
 * Kinds of credentials, by precedence: those of a cloud provider, a stored key, the
 * caller's ANTHROPIC_AUTH_TOKEN for a gateway, the caller's ANTHROPIC_API_KEY, a stored
 * token, the instance's login.
 */
export type Credential =
  | "provider"
  | "key"
  | "gateway"
  | "caller"
  | "token"
  | "login";

/** Files in a session's Claude home; docker/claude-session.sh reads the token file. */
const keyFile = ".anthropic_key";
const tokenFile = ".oauth_token";
/** Written by the CLI when the user logs in from within the session. */
const ownLogin = ".credentials.json";

/** Stores an API key, or a token from `claude setup-token`, for all sessions. */
export function keepCredential(
  { home, owner }: Home,
  kind: "key" | "token",
  text: string,
): void {
  const value = text.trim();
  if (!/^[\x21-\x7e]{8,4096}$/.test(value)) {
    throw new Failure("usage", `Invalid ${kindName[kind]}`, {
      hint: "Enter one line of 8 characters or more, without spaces.",
    });
  }
  if (kind === "key" && value.startsWith("sk-ant-oat")) {
    throw new Failure("usage", "This is a token, not an API key", {
      hint: "Store it as a token: claudy login --token",
    });
  }
  writeAtomic(credentialFile(home, kind), value, owner);
}

const kindName = { key: "API key", token: "token" };

function credentialFile(home: HomePaths, kind: "key" | "token"): string {
  return kind === "key" ? home.anthropicKey : home.claudeToken;
}

/** The kind that a session opened now would use; undefined if there is none. */
export function credentialFor(
  { home }: Pick<Instance, "home">,
  env: NodeJS.ProcessEnv,
): Credential | undefined {
  if (providerOf(env) !== undefined) return "provider";
  if (isStored(home.anthropicKey)) return "key";
  if (env["ANTHROPIC_AUTH_TOKEN"]) return "gateway";
  if (env["ANTHROPIC_API_KEY"]) return "caller";
  if (isStored(home.claudeToken)) return "token";
  if (isLoggedIn(home)) return "login";
  return undefined;
}

/** Whether a session has credentials: those of the instance, or of its own. */
export function hasCredentials(
  instance: Pick<Instance, "home">,
  claudeHome: string,
  env: NodeJS.ProcessEnv,
): boolean {
  if (credentialFor(instance, env)) return true;
  const grant = readGrant(instance, relative(instance.home.home, claudeHome));
  if (grant?.kind === "caller") return true;
  return inDirectory(
    claudeHome,
    (home) =>
      [keyFile, ownLogin].some((file) =>
        home.stat(file)?.kind === "file" && !hasPlaceholder(home.at(file))
      ),
  ) ??
    false;
}

/** Whether the path is a non-empty file. */
function isStored(path: string): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  return (stat?.isFile() && stat.size > 0) ?? false;
}

/** How the CLI of a session signs in. */
export interface SignIn {
  /** A command in the worker that prints the API key; undefined without one. */
  apiKeyHelper: string | undefined;
  /** Variables to start the CLI with; contains no secrets. */
  env: Record<string, string>;
  /** Variables that claude-session.sh sets from files; some are secret. */
  variables: Record<string, string>;
  /** What the caller's environment sets but the session does not get, and why. */
  left: string[];
}

/** Writes the credentials and the named secrets into a session's Claude home. */
export function layOutCredentials(
  instance: Home,
  claudeHome: string,
  project: Owner,
  env: NodeJS.ProcessEnv,
  { claudeRuns = false, isolated = false, relaying }: {
    /** Keeps the key: the settings of a running Claude refer to it. */
    claudeRuns?: boolean;
    /** Gives the session no secrets that the egress proxy sets in its requests. */
    isolated?: boolean;
    /** Gives the session a placeholder only. */
    relaying?: Relaying | undefined;
  } = {},
): SignIn {
  const { home } = instance;
  const chosen = credentialFor(instance, env);
  if (relaying && chosen !== "provider") {
    return layOutPlaceholder(instance, claudeHome, project, env, {
      claudeRuns,
      isolated,
      grant: grantRelay(instance, claudeHome, {
        chosen,
        keyFile,
        relaying,
        claudeRuns,
      }),
    });
  }
  const former = takeGrant(instance, relative(home.home, claudeHome));
  const write = (file: string, text: string | undefined) => {
    const path = join(claudeHome, file);
    if (text !== undefined) replaceFile(path, text, project, { mode: 0o400 });
    else clearPath(path);
  };
  const key = chosen === "key"
    ? readFileSync(home.anthropicKey, "utf8")
    : chosen === "caller"
    ? env["ANTHROPIC_API_KEY"]
    : undefined;
  const passed = callerVariables(env);
  addGateway(passed, env, chosen);
  // Without any credentials, the session keeps the key from its last start.
  const keepsKey = chosen === undefined || claudeRuns && key === undefined;
  if (!keepsKey) {
    write(keyFile, key);
  } else {
    const last = lastKey(claudeHome, keyFile, former);
    // There may be a placeholder in its place, if the relay was used before.
    if (former || last === null) write(keyFile, last ?? undefined);
  }
  const token = chosen === "token"
    ? readFileSync(home.claudeToken, "utf8")
    : undefined;
  write(tokenFile, token);
  const variables = writeSecrets(instance, claudeHome, project, {
    passed,
    claudeRuns,
    isolated,
  });
  const hasKey = lstatSync(join(claudeHome, keyFile), { throwIfNoEntry: false })
    ?.isFile();
  return {
    apiKeyHelper: hasKey
      ? `cat ${insideWorker.claudeHome}/${keyFile}`
      : undefined,
    env: chosen === "login"
      ? { CLAUDE_SECURESTORAGE_CONFIG_DIR: insideWorker.credentials }
      : {},
    variables: {
      ...(token === undefined ? {} : { CLAUDE_CODE_OAUTH_TOKEN: token }),
      ...variables,
    },
    left: passed.left,
  };
}

/** Writes the placeholder where the credential would be, so that the CLI does the same. */
function layOutPlaceholder(
  instance: Home,
  claudeHome: string,
  project: Owner,
  env: NodeJS.ProcessEnv,
  { grant, claudeRuns, isolated }: {
    grant: Grant;
    claudeRuns: boolean;
    isolated: boolean;
  },
): SignIn {
  const { kind, placeholder } = grant;
  const passed = callerVariables(env);
  reportUnusedToken(passed, env, kind);
  const { values, files } = passed;
  const trusted = trustedFile(
    instance,
    files[`${callerFile}NODE_EXTRA_CA_CERTS`],
  );
  files[trusted.name] = trusted.bytes;
  values["NODE_EXTRA_CA_CERTS"] = `${insideWorker.claudeHome}/${trusted.name}`;
  for (const name of ["NO_PROXY", "no_proxy"]) {
    // In an isolated worker, other programs reach the API by the egress proxy.
    const hosts = grant.isolated ? localHosts : values[name];
    if (hosts !== undefined) values[name] = `${hosts},${apiHost}`;
  }
  if (kind === "gateway") values["ANTHROPIC_AUTH_TOKEN"] = placeholder;
  const isKey = kind === "key" || kind === "caller";
  for (
    const [name, given] of [
      [keyFile, isKey],
      [tokenFile, kind === "token"],
    ] as const
  ) {
    const path = join(claudeHome, name);
    if (given) replaceFile(path, placeholder, project, untilNextStart);
    else clearPath(path);
  }
  if (kind === "login") layOutLogin(instance, claudeHome, project, placeholder);
  const variables = writeSecrets(instance, claudeHome, project, {
    passed,
    claudeRuns,
    isolated,
  });
  return {
    apiKeyHelper: isKey
      ? `cat ${insideWorker.claudeHome}/${keyFile}`
      : undefined,
    env: kind === "login"
      ? { CLAUDE_SECURESTORAGE_CONFIG_DIR: relayedLogin }
      : {},
    variables: {
      ...(kind === "token" ? { CLAUDE_CODE_OAUTH_TOKEN: placeholder } : {}),
      ...variables,
    },
    left: passed.left,
  };
}

/** The caller's token and headers are for the gateway that ANTHROPIC_BASE_URL names. */
function addGateway(
  passed: CallerVariables,
  env: NodeJS.ProcessEnv,
  chosen: Credential | undefined,
): void {
  const { values } = passed;
  const { ANTHROPIC_AUTH_TOKEN: token, ANTHROPIC_CUSTOM_HEADERS: headers } =
    env;
  if (headers) values["ANTHROPIC_CUSTOM_HEADERS"] = headers;
  if (token && chosen === "gateway") values["ANTHROPIC_AUTH_TOKEN"] = token;
  reportUnusedToken(passed, env, chosen);
}

function reportUnusedToken(
  { left }: CallerVariables,
  env: NodeJS.ProcessEnv,
  used: Credential | GrantKind | undefined,
): void {
  if (!env["ANTHROPIC_AUTH_TOKEN"] || used !== "key") return;
  left.push(
    "ANTHROPIC_AUTH_TOKEN: the stored key is used; remove it with claudy logout",
  );
}

/** Removes the stored credentials, and their copies in the sessions. */
export function forgetCredentials(instance: Home): void {
  const { home } = instance;
  for (
    const path of [
      home.anthropicKey,
      home.claudeToken,
      home.login,
      join(home.credentials, ".credentials.json"),
    ]
  ) {
    rmSync(path, { recursive: true, force: true });
  }
  forgetGrants(instance);
  inDirectory(home.claude, (homes) => {
    for (const { name, kind } of homes.entries()) {
      const claudeHome = kind === "directory" ? homes.enter(name) : undefined;
      if (!claudeHome) continue;
      for (const { name } of claudeHome.entries()) {
        const given = [keyFile, tokenFile].includes(name) ||
          [callerFile, callerVariable].some((one) => name.startsWith(one));
        if (given && !hasPlaceholder(claudeHome.at(name))) {
          clearPath(claudeHome.at(name));
        }
      }
      claudeHome.close();
    }
  });
}

/** Of a session that uses the relay, which may run and go on after the next login. */
function hasPlaceholder(path: string): boolean {
  try {
    return isPlaceholder(plainText(path, { maxBytes: 4096 }) ?? "");
  } catch {
    return false; // too large, or not a file
  }
}
