// Named secrets: stored for the instance, and written into each session's Claude home. For
// those of a host, isolated sessions get a placeholder, see egress/host-secrets.ts.

import { randomBytes } from "node:crypto";
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join, relative } from "node:path";
import {
  checkHeaderValue,
  checkHostUse,
  grantedSecrets,
  grantSecrets,
  type HostSecret,
  type HostUse,
  readHostSecrets,
  removeHostSecret,
  writeHostSecret,
} from "../egress/host-secrets.ts";
import type { Instance } from "../instance/instance.ts";
import { insideWorker } from "../instance/paths.ts";
import { type Directory, inDirectory } from "../std/directory.ts";
import { Failure } from "../std/errors.ts";
import {
  ensureDirectory,
  isStaged,
  type Owner,
  replaceFile,
  writeAtomic,
} from "../std/owned.ts";
import { clearPath } from "../std/plain-file.ts";
import {
  callerFile,
  callerVariable,
  type CallerVariables,
  certificateVariables,
} from "./caller-variables.ts";

type Home = Pick<Instance, "home" | "owner">;

const secretPrefix = ".secret.";
const variablePrefix = ".secret-env.";

export interface NamedSecret {
  name: string;
  /** Whether it is also set as an environment variable of the session. */
  variable: boolean;
  /** For isolated sessions: the requests that it is set in. */
  sent?: HostUse;
}

/** Variables that a session depends on, or that change how programs are run. */
const reservedVariables =
  /^(HOME|PATH|SHELL|TERM|LANG|IFS|ENV|CLAUDE_CONFIG_DIR|LD_.*|BASH_.*)$/;

export function setSecret(
  { home, owner }: Home,
  { name, variable }: Omit<NamedSecret, "sent">,
  value: string,
): void {
  checkSecret({ name, variable });
  ensureDirectory(home.namedSecrets, 0o700, owner);
  removeSecret({ home }, name);
  const file = variable ? `${name}.env` : name;
  writeAtomic(join(home.namedSecrets, file), value, owner);
}

/** An authority cannot be replaced in sessions that run, which may be as long as this. */
const authorityMs = 10 * 365 * 24 * 60 * 60_000;
const renewMs = authorityMs / 2;

/** Stores a secret for a host. Running sessions that have it use the new value at once. */
export async function setHostSecret(
  instance: Home,
  { name, variable, sent }: Required<NamedSecret>,
  value: string,
  now = Date.now(),
): Promise<void> {
  checkSecret({ name, variable });
  const use = checkHostUse(sent);
  checkHeaderValue(value);
  const { host, header } = use;
  const all = readHostSecrets(instance);
  const other = all.find((one) =>
    one.name !== name && one.host === host &&
    one.header.toLowerCase() === header.toLowerCase()
  );
  if (other) {
    throw new Failure(
      "busy",
      `Cannot save ${name}: ${other.name} is already sent to ${host} as ${other.header}`,
      { hint: `Remove it first: claudy secret rm ${other.name}` },
    );
  }
  const before = all.find((one) => one.name === name && one.host === host);
  const authority = before && before.authority.until > now + renewMs
    ? before.authority
    : await newAuthority(host, now);
  writeHostSecret(instance, { name, ...use, variable, value, authority });
  removePlain(instance, name);
}

async function newAuthority(
  host: string,
  now: number,
): Promise<HostSecret["authority"]> {
  // Other commands do not load it.
  const certificates = await import("../std/certificates.ts");
  const name = "HAL-9000 secrets";
  const lifeMs = authorityMs;
  return await certificates.newAuthority({ name, lifeMs, host, now });
}

/** Throws a `usage` Failure if a secret cannot have this name, or be this variable. */
export function checkSecret(
  { name, variable }: Omit<NamedSecret, "sent">,
): void {
  checkSecretName(name);
  if (variable && reservedVariables.test(name)) {
    throw new Failure(
      "usage",
      `Cannot set ${name} from a secret: this variable changes how programs run`,
      { hint: "Choose another name, or save it as a file: omit --env." },
    );
  }
}

export function listSecrets({ home }: Pick<Instance, "home">): NamedSecret[] {
  const sent = readHostSecrets({ home }).map((
    { name, variable, host, header, format, user },
  ) => ({ name, variable, sent: { host, header, format, user } }));
  return [...listPlain({ home }), ...sent]
    .sort((a, b) => a.name < b.name ? -1 : 1);
}

/** Those that all sessions get as they are. */
function listPlain({ home }: Pick<Instance, "home">): NamedSecret[] {
  if (!existsSync(home.namedSecrets)) return [];
  return readdirSync(home.namedSecrets)
    .filter((file) => /^[A-Za-z_]\w*(\.env)?$/.test(file))
    .map((file) => ({
      name: file.replace(/\.env$/, ""),
      variable: file.endsWith(".env"),
    }));
}

/** Returns false if there was no such secret. */
export function removeSecret(
  { home }: Pick<Instance, "home">,
  name: string,
): boolean {
  checkSecretName(name);
  const isPlain = removePlain({ home }, name);
  return removeHostSecret({ home }, name) || isPlain;
}

function removePlain({ home }: Pick<Instance, "home">, name: string): boolean {
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
  throw new Failure("usage", `Invalid secret name "${name}"`, {
    hint: "Use letters, digits and underscores, with no digit first.",
  });
}

/** What a session gets of the secrets for hosts. */
interface HostSecrets {
  /** Those whose authorities it trusts. */
  trusted: HostSecret[];
  /** By name; isolated sessions get placeholders. */
  values: { name: string; variable: boolean; value: string }[];
}

function hostSecretsFor(
  instance: Home,
  claudeHome: string,
  { isolated, claudeRuns }: { isolated: boolean; claudeRuns: boolean },
): HostSecrets {
  const all = readHostSecrets(instance);
  const home = relative(instance.home.home, claudeHome);
  if (!isolated) {
    grantSecrets(instance, home, []);
    return { trusted: [], values: all };
  }
  // A running Claude trusts no other authorities than those of its start.
  const trusted = claudeRuns ? grantedSecrets(instance, home, all) : all;
  if (!claudeRuns) grantSecrets(instance, home, trusted);
  // Worth nothing: the proxy does not look at it. Some programs send nothing without it.
  const value = () => `hal9000-placeholder-${randomBytes(16).toString("hex")}`;
  return {
    trusted,
    values: trusted.map(({ name, variable }) => ({
      name,
      variable,
      value: value(),
    })),
  };
}

/** In a Claude home; docker/claude-session.sh adds them to the system's certificates. */
const authoritiesFile = `${callerFile}secret-hosts.pem`;

/** Has all programs of a session trust the authorities, in addition to those that they trust. */
function trustAuthorities(
  { values, files }: CallerVariables,
  secrets: readonly HostSecret[],
): void {
  const own = secrets.map(({ authority }) => authority.cert).join("\n");
  const withOwn = (bytes: Uint8Array) =>
    new TextEncoder().encode(`${new TextDecoder().decode(bytes)}\n${own}\n`);
  for (const name of certificateVariables) {
    const file = `${callerFile}${name}`;
    const callers = files[file];
    // Node.js adds these to its own, the other programs have no others then.
    const isAdded = name === "NODE_EXTRA_CA_CERTS";
    if (callers || isAdded) {
      files[file] = withOwn(callers ?? new Uint8Array());
      values[name] = `${insideWorker.claudeHome}/${file}`;
    } else values[name] = insideWorker.certificates;
  }
  files[authoritiesFile] = withOwn(new Uint8Array());
}

/** No fsync: after a crash of the machine, they are written again at the next start. */
export const untilNextStart = { mode: 0o400, sync: false };

/**
 * Writes the secrets and the caller's variables directly into the Claude home, since the
 * worker could replace a subdirectory by a link. Returns those that are variables.
 */
export function writeSecrets(
  instance: Home,
  claudeHome: string,
  user: Owner,
  { passed, claudeRuns, isolated }: {
    passed: CallerVariables;
    claudeRuns: boolean;
    isolated: boolean;
  },
): Record<string, string> {
  const { home } = instance;
  const hosts = hostSecretsFor(instance, claudeHome, { isolated, claudeRuns });
  if (hosts.trusted.length > 0) trustAuthorities(passed, hosts.trusted);
  const secrets = [
    ...listPlain({ home }).map(({ name, variable }) => {
      const file = join(home.namedSecrets, variable ? `${name}.env` : name);
      return { name, variable, value: readFileSync(file) };
    }),
    ...hosts.values,
  ];
  const wanted = new Map<string, string | Uint8Array>();
  for (const [name, bytes] of Object.entries(passed.files)) {
    wanted.set(name, bytes);
  }
  for (const [name, value] of Object.entries(passed.values)) {
    wanted.set(callerVariable + name, value);
  }
  const variables = { ...passed.values };
  for (const { name, variable, value } of secrets) {
    wanted.set((variable ? variablePrefix : secretPrefix) + name, value);
    if (variable) variables[name] = value.toString().trimEnd();
  }
  // Those of the caller who started Claude stay while it runs.
  const cleared = [
    ...[secretPrefix, variablePrefix],
    ...(claudeRuns ? [] : [callerFile, callerVariable]),
  ];
  inDirectory(claudeHome, (directory) => {
    for (const { name } of directory.entries()) {
      // Another command may be writing the same files.
      const unwanted = isStaged(name)
        ? isStale(directory, name)
        : !wanted.has(name) &&
          cleared.some((prefix) => name.startsWith(prefix));
      if (unwanted) clearPath(directory.at(name));
    }
  });
  for (const [name, value] of wanted) {
    replaceFile(join(claudeHome, name), value, user, untilNextStart);
  }
  return variables;
}

/** An older temporary file was left by a killed command: no command takes this long. */
const staleAfterMs = 10 * 60_000;

function isStale(directory: Directory, name: string): boolean {
  const stat = directory.stat(name);
  return stat?.kind === "file" && Date.now() - stat.mtimeMs > staleAfterMs;
}
