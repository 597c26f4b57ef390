// Named secrets for a host: the egress proxy sets them in requests of isolated workers, which
// get a placeholder. A file for each in secrets/named, with the authority that workers trust
// for its host, and one in secrets/host-grants for each session that has such secrets.

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { existsSync, rmSync } from "node:fs";
import { isIP } from "node:net";
import { join } from "node:path";
import * as v from "valibot";
import type { Instance } from "../instance/instance.ts";
import { Failure } from "../std/errors.ts";
import { readJson } from "../std/json.ts";
import { namesIn } from "../std/names-in.ts";
import { ensureDirectory, writeAtomic } from "../std/owned.ts";
import { isLocalhost } from "./address.ts";
import { normalHost } from "./target.ts";

/** Where a secret is sent, and how. */
const useSchema = v.object({
  host: v.string(),
  header: v.string(),
  /** The header's value, with %s for the secret. */
  format: v.string(),
  /** With a user, %s is both as in HTTP's Basic authentication. */
  user: v.nullable(v.string()),
});

export type HostUse = v.InferOutput<typeof useSchema>;

const fileSchema = v.object({
  version: v.literal(1),
  ...useSchema.entries,
  /** Whether the placeholder is also an environment variable of the session. */
  variable: v.boolean(),
  value: v.string(),
  authority: v.object({
    /** PEM. */
    cert: v.string(),
    key: v.string(),
    /** Milliseconds since 1970. */
    until: v.number(),
  }),
});

export interface HostSecret
  extends Omit<v.InferOutput<typeof fileSchema>, "version"> {
  name: string;
}

type Home = Pick<Instance, "home" | "owner">;

const suffix = ".host";

/** By name. */
export function readHostSecrets(
  { home }: Pick<Instance, "home">,
): HostSecret[] {
  return namesIn(home.namedSecrets).sort().flatMap((file) => {
    const [, name] = /^([A-Za-z_]\w*)\.host$/.exec(file) ?? [];
    const found = name && readJson(join(home.namedSecrets, file), fileSchema);
    return found ? [{ ...found, name }] : [];
  });
}

export function writeHostSecret(
  { home, owner }: Home,
  { name, ...secret }: HostSecret,
): void {
  ensureDirectory(home.namedSecrets, 0o700, owner);
  const text = JSON.stringify({ version: 1, ...secret });
  writeAtomic(join(home.namedSecrets, name + suffix), text, owner);
}

/** Returns false if there was no such secret. */
export function removeHostSecret(
  { home }: Pick<Instance, "home">,
  name: string,
): boolean {
  const path = join(home.namedSecrets, name + suffix);
  const found = existsSync(path);
  rmSync(path, { force: true });
  return found;
}

/** Set by the proxy, or about one connection. */
const reservedHeaders =
  /^(host|connection|content-length|transfer-encoding|te|trailer|upgrade|expect|keep-alive|proxy-.*)$/i;

/** The Anthropic API, whose credentials are those of claudy login. */
const apiHost = "api.anthropic.com";

/** Throws a `usage` Failure, which does not contain the value. */
export function checkHeaderValue(value: string): void {
  if (/^[\x20-\x7e]{1,8192}$/.test(value)) return;
  throw new Failure("usage", "This value cannot be sent in a header", {
    hint: "Enter one line of printable ASCII characters.",
  });
}

/** Checks what a user gave. Throws a `usage` Failure. */
export function checkHostUse(given: HostUse): HostUse {
  const host = normalHost(given.host);
  if (host === undefined || isIP(host) || isLocalhost(host)) {
    throw new Failure("usage", `Not the name of a host: "${given.host}"`, {
      hint: "Use a name without a port, such as api.github.com.",
    });
  }
  if (host === apiHost) {
    throw new Failure("usage", `${apiHost} needs no named secret`, {
      hint: "Save the credentials of sessions: claudy login",
    });
  }
  const { header, format, user } = given;
  if (!/^[\w!#$%&'*+.^`|~-]+$/.test(header) || reservedHeaders.test(header)) {
    throw new Failure("usage", `A secret cannot be the header "${header}"`, {
      hint: "Use a header such as Authorization or X-Api-Key.",
    });
  }
  if (!/^[\x20-\x7e]{2,256}$/.test(format) || format.split("%s").length !== 2) {
    throw new Failure("usage", `Not a format: "${format}"`, {
      hint: "It has %s in place of the secret, such as 'Bearer %s'.",
    });
  }
  if (user !== null && !/^[\x21-\x39\x3b-\x7e]{1,256}$/.test(user)) {
    throw new Failure("usage", `Not a user name: "${user}"`);
  }
  return { ...given, host };
}

/** The value of the header. */
export function headerValue({ format, user, value }: HostSecret): string {
  const sent = user === null
    ? value
    : Buffer.from(`${user}:${value}`).toString("base64");
  return format.replace("%s", () => sent);
}

const grantSchema = v.object({
  version: v.literal(1),
  /** The Claude home, relative to HAL9000_HOME. */
  home: v.string(),
  /** Digests of the authorities that Claude trusts since its start, by the secrets' names. */
  secrets: v.record(v.string(), v.string()),
});

/**
 * The secrets that a session was given when its Claude was started, with their present
 * values. One whose authority is another now is left out: Claude does not trust it.
 */
export function grantedSecrets(
  { home }: Pick<Instance, "home">,
  claudeHome: string,
  all = readHostSecrets({ home }),
): HostSecret[] {
  const grant = readJson(grantFile({ home }, claudeHome), grantSchema);
  return all.filter(({ name, authority }) =>
    grant && Object.hasOwn(grant.secrets, name) &&
    grant.secrets[name] === digestOf(authority.cert)
  );
}

/** Gives a session, whose Claude is about to start, these secrets and no others. */
export function grantSecrets(
  { home, owner }: Home,
  claudeHome: string,
  secrets: readonly HostSecret[],
): void {
  const file = grantFile({ home }, claudeHome);
  if (secrets.length === 0) return rmSync(file, { force: true });
  ensureDirectory(home.hostGrants, 0o700, owner);
  const grant = {
    version: 1,
    home: claudeHome,
    secrets: Object.fromEntries(
      secrets.map(({ name, authority }) => [name, digestOf(authority.cert)]),
    ),
  };
  writeAtomic(file, JSON.stringify(grant), owner);
}

/** Removes the grants of sessions that were removed. */
export function dropGrants({ home }: Pick<Instance, "home">): void {
  for (const name of namesIn(home.hostGrants)) {
    const path = join(home.hostGrants, name);
    const grant = readJson(path, grantSchema);
    if (grant && !existsSync(join(home.home, grant.home))) {
      rmSync(path, { force: true });
    }
  }
}

function grantFile(
  { home }: Pick<Instance, "home">,
  claudeHome: string,
): string {
  return join(home.hostGrants, `${digestOf(claudeHome).slice(0, 32)}.json`);
}

function digestOf(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
