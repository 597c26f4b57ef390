// What sessions sign in with: kept for the instance, or the caller's. A session
// gets it as a file of its Claude home, never as a variable of its container.

import {
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from "node:fs";
import { join } from "node:path";
import { type Directory, inDirectory } from "../std/directory.ts";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { isLoggedIn } from "./login.ts";
import {
  ensureDirectory,
  isStaged,
  type Owner,
  replaceFile,
  writeAtomic,
} from "../std/owned.ts";
import type { HomePaths } from "../instance/paths.ts";
import { clearPath } from "../std/plain-file.ts";
import { insideWorker } from "../instance/paths.ts";

type Home = Pick<Instance, "home" | "owner">;

/** In the order in which they are tried. */
export type Credential = "key" | "caller" | "token" | "login";

/** Files of a session's Claude home; docker/claude-session.sh reads the second. */
const keyFile = ".anthropic_key";
const tokenFile = ".oauth_token";
const secretPrefix = ".secret.";
const variablePrefix = ".secret-env.";

/** Keeps an API key, or a token of `claude setup-token`, for all sessions. */
export function keepCredential(
  { home, owner }: Home,
  kind: "key" | "token",
  text: string,
): void {
  const value = text.trim();
  if (!/^[\x21-\x7e]{8,4096}$/.test(value)) {
    throw new Failure("usage", `That is no ${kindName[kind]}`, {
      hint: "One line is wanted, without spaces.",
    });
  }
  if (kind === "key" && value.startsWith("sk-ant-oat")) {
    throw new Failure("usage", "That is a token, and no API key", {
      hint: "Keep it as one: claudy login --token",
    });
  }
  writeAtomic(credentialFile(home, kind), value, owner);
}

const kindName = { key: "API key", token: "token" };

function credentialFile(home: HomePaths, kind: "key" | "token"): string {
  return kind === "key" ? home.anthropicKey : home.claudeToken;
}

/** Which one a session that is opened now would use; undefined of none. */
export function credentialFor(
  { home }: Pick<Instance, "home">,
  env: NodeJS.ProcessEnv,
): Credential | undefined {
  if (isKept(home.anthropicKey)) return "key";
  if (env["ANTHROPIC_API_KEY"]) return "caller";
  if (isKept(home.claudeToken)) return "token";
  if (isLoggedIn(home)) return "login";
  return undefined;
}

/** Whether there is something in it: what else has the name signs nobody in. */
function isKept(path: string): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  return (stat?.isFile() && stat.size > 0) ?? false;
}

/** What the CLI of a session signs in with. */
export interface SignIn {
  /** A command in the worker that prints the API key; undefined without one. */
  apiKeyHelper: string | undefined;
  /** Variables for the CLI's start; no secrets. */
  env: Record<string, string>;
  /** Variables that claude-session.sh sets from files; some are secret. */
  variables: Record<string, string>;
}

/** Lays out what the CLI of a Claude home signs in with, and the secrets. */
export function layOutCredentials(
  instance: Home,
  claudeHome: string,
  project: Owner,
  env: NodeJS.ProcessEnv,
): SignIn {
  const { home } = instance;
  const chosen = credentialFor(instance, env);
  const lay = (file: string, text: string | undefined) => {
    const path = join(claudeHome, file);
    if (text !== undefined) replaceFile(path, text, project, { mode: 0o400 });
    else clearPath(path);
  };
  const key = chosen === "key"
    ? readFileSync(home.anthropicKey, "utf8")
    : chosen === "caller"
    ? env["ANTHROPIC_API_KEY"]
    : undefined;
  // Of a session that is opened without any, the key of its last time stays.
  if (chosen !== undefined) lay(keyFile, key);
  const token = chosen === "token"
    ? readFileSync(home.claudeToken, "utf8")
    : undefined;
  lay(tokenFile, token);
  const variables = laySecrets(instance, claudeHome, project);
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
  };
}

/** Removes all that was kept, from the sessions too. */
export function forgetCredentials({ home }: Pick<Instance, "home">): void {
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
  inDirectory(home.claude, (homes) => {
    for (const { name, kind } of homes.entries()) {
      const claudeHome = kind === "directory" ? homes.enter(name) : undefined;
      if (!claudeHome) continue;
      for (const file of [keyFile, tokenFile]) clearPath(claudeHome.at(file));
      claudeHome.close();
    }
  });
}

export interface NamedSecret {
  name: string;
  /** Whether it is a variable of the session's processes besides a file. */
  variable: boolean;
}

/** Names that a session would not work without as they are. */
const ownVariables =
  /^(HOME|PATH|SHELL|TERM|LANG|IFS|ENV|CLAUDE_CONFIG_DIR|LD_.*|BASH_.*)$/;

export function setSecret(
  { home, owner }: Home,
  { name, variable }: NamedSecret,
  value: string,
): void {
  checkSecretName(name);
  if (variable && ownVariables.test(name)) {
    throw new Failure("usage", `${name} cannot be a secret's variable`);
  }
  ensureDirectory(home.namedSecrets, 0o700, owner);
  removeSecret({ home }, name);
  const file = variable ? `${name}.env` : name;
  writeAtomic(join(home.namedSecrets, file), value, owner);
}

export function listSecrets({ home }: Pick<Instance, "home">): NamedSecret[] {
  if (!existsSync(home.namedSecrets)) return [];
  return readdirSync(home.namedSecrets)
    .filter((file) => /^[A-Za-z_]\w*(\.env)?$/.test(file))
    .map((file) => ({
      name: file.replace(/\.env$/, ""),
      variable: file.endsWith(".env"),
    }))
    .sort((a, b) => a.name < b.name ? -1 : 1);
}

/** Gives whether there was one. */
export function removeSecret(
  { home }: Pick<Instance, "home">,
  name: string,
): boolean {
  checkSecretName(name);
  let found = false;
  for (const file of [name, `${name}.env`]) {
    const path = join(home.namedSecrets, file);
    found ||= existsSync(path);
    rmSync(path, { force: true });
  }
  return found;
}

function checkSecretName(name: string): void {
  if (/^[A-Za-z_]\w*$/.test(name)) return;
  throw new Failure("usage", `"${name}" is not a name for a secret`, {
    hint: "Letters, digits and underscores; no digit first.",
  });
}

/**
 * Files of the home itself, not of a directory in it: that could be the worker's
 * link by the time it is written to. Gives those that are variables.
 */
function laySecrets(
  { home }: Home,
  claudeHome: string,
  user: Owner,
): Record<string, string> {
  const secrets = listSecrets({ home });
  const wanted = new Set(
    secrets.map(({ name, variable }) =>
      (variable ? variablePrefix : secretPrefix) + name
    ),
  );
  inDirectory(claudeHome, (directory) => {
    for (const { name } of directory.entries()) {
      const ours = name.startsWith(secretPrefix) ||
        name.startsWith(variablePrefix);
      const unwanted = ours && !wanted.has(name) || isLeft(directory, name);
      if (unwanted) clearPath(directory.at(name));
    }
  });
  const variables: Record<string, string> = {};
  for (const { name, variable } of secrets) {
    const file = join(home.namedSecrets, variable ? `${name}.env` : name);
    const to = (variable ? variablePrefix : secretPrefix) + name;
    const value = readFileSync(file);
    replaceFile(join(claudeHome, to), value, user, { mode: 0o400 });
    if (variable) variables[name] = value.toString().trimEnd();
  }
  return variables;
}

/** A file that a command of ours was killed over: none takes as long as this. */
const stagingMs = 10 * 60_000;

function isLeft(directory: Directory, name: string): boolean {
  if (!isStaged(name)) return false;
  const stat = directory.stat(name);
  return stat?.kind === "file" && Date.now() - stat.mtimeMs > stagingMs;
}
