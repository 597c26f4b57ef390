// In the parent: gives the proxy its policy, whole, whenever it has changed. The proxy
// itself cannot read HAL9000_HOME.

import { existsSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { basename, join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import type { Writable } from "node:stream";
import { readSettings } from "../instance/config.ts";
import type { Instance } from "../instance/instance.ts";
import { readRecords } from "../instance/record.ts";
import type { KeyPair } from "../std/certificates.ts";
import { namesIn } from "../std/names-in.ts";
import { fileSignature } from "../std/plain-file.ts";
import {
  dropGrants,
  grantedSecrets,
  headerValue,
  readHostSecrets,
} from "./host-secrets.ts";
import type { Leaves } from "./leaves.ts";
import type { PolicyText, Scope, ScopeText } from "./policy.ts";
import { readScope, readScopes, scopeText } from "./store.ts";
import { directNetwork, readHostNetwork } from "./upstream.ts";

/** Changes apply within a second: this, and the time to read all rules and records. */
const everyMs = 200;

/** Also without a visible change, in case that one was missed. */
const fullEveryMs = 10_000;

type Home = Pick<Instance, "home" | "owner">;

/**
 * All that the proxy has to know. Never throws: what cannot be read is null. `leaves` are the
 * certificates for hosts of secrets, by those of their authorities.
 */
export function compilePolicy(
  instance: Home,
  env: NodeJS.ProcessEnv,
  leaves: ReadonlyMap<string, KeyPair> = new Map(),
): PolicyText {
  const { home } = instance;
  const projects = textsOf(readScopes(instance, "projects"));
  const workers: PolicyText["workers"] = {};
  const secrets: PolicyText["secrets"] = {};
  const all = readHostSecrets(instance);
  for (const record of readRecords(instance)) {
    const { container, worker, session, project } = record;
    const given = grantedSecrets(instance, record.home, all);
    workers[container] = {
      worker,
      session,
      project: project.path,
      ...(given.length > 0 ? { secrets: given.map(({ name }) => name) } : {}),
    };
    // The proxy gets no secret that no worker uses.
    for (const secret of given) {
      const leaf = leaves.get(secret.authority.cert);
      const { name, host, header } = secret;
      if (!leaf) continue;
      const { cert, key } = leaf;
      const value = headerValue(secret);
      secrets[name] = { host, header, value, leaf: { cert, key } };
    }
    const file = basename(home.egressProject(project.path), ".json");
    if (projects[file] === null) projects[project.path] = null;
  }
  const host = existsSync(home.egressHost)
    ? readHostNetwork(instance)
    : directNetwork;
  return {
    // Not past a proxy that is not known.
    setting: host ? orNull(() => readSettings(env).EGRESS_PRESET) : null,
    instance: orNull(() => scopeText(readScope(instance, {}))),
    projects,
    sessions: textsOf(readScopes(instance, "sessions")),
    workers,
    own: { host: host?.addresses ?? [], parent: ownAddresses() },
    upstream: (host ?? directNetwork).upstream,
    secrets,
  };
}

/** Addresses of this network namespace. */
export function ownAddresses(): string[] {
  return Object.values(networkInterfaces())
    .flatMap((all) => all ?? []).map(({ address }) => address);
}

/** Writes the policy to the proxy's input as lines, until that closes. */
export async function feedPolicy(
  instance: Home,
  input: Writable,
  leaves: Leaves,
): Promise<void> {
  // The proxy has ended; the supervisor starts another.
  input.on("error", () => {});
  let seen = "";
  let sent = "";
  let readAt = -Infinity;
  while (input.writable) {
    const now = signature(instance);
    if (now !== seen || performance.now() - readAt >= fullEveryMs) {
      seen = now;
      readAt = performance.now();
      dropGrants(instance);
      const made = await leaves.make(readHostSecrets(instance));
      const text = JSON.stringify(compilePolicy(instance, process.env, made));
      if (text !== sent) input.write(`${text}\n`);
      sent = text;
    }
    await sleep(everyMs);
  }
}

/** Differs after each change of a file, also one that was made by hand. */
function signature({ home }: Home): string {
  const scopes = ["projects", "sessions"].map((kind) => join(home.egress, kind))
    .flatMap((directory) => [
      directory,
      ...namesIn(directory).map((name) => join(directory, name)),
    ]);
  const paths = [
    home.conf,
    home.egressHost,
    home.sessions,
    home.egressInstance,
    home.namedSecrets,
    home.hostGrants,
    ...scopes,
  ];
  return paths.map(fileSignature).join("\n");
}

function textsOf(
  scopes: Record<string, Scope | null>,
): Record<string, ScopeText | null> {
  return Object.fromEntries(
    Object.entries(scopes).map(([name, scope]) => [
      name,
      scope && scopeText(scope),
    ]),
  );
}

function orNull<T>(read: () => T): T | null {
  try {
    return read();
  } catch {
    return null;
  }
}
