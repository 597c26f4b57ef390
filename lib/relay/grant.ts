// What a session may use of the relay: its placeholder, and where its requests go. Written
// when Claude starts, in secrets/, which no worker sees.

import { createHash, randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { upstreamSchema } from "../egress/upstream.ts";
import type { Instance } from "../instance/instance.ts";
import { readJson } from "../std/json.ts";
import { namesIn } from "../std/names-in.ts";
import { ensureDirectory, stageFile } from "../std/owned.ts";
import { placeholderOf } from "./names.ts";

/**
 * Which credential replaces the placeholder: one of the instance, the caller's, or none,
 * because the user logs in from within the session.
 */
const kind = v.picklist(["key", "token", "login", "caller", "gateway", "own"]);

export type GrantKind = v.InferOutput<typeof kind>;

export const grantSchema = v.object({
  version: v.literal(1),
  /** The Claude home, relative to HAL9000_HOME. */
  home: v.string(),
  placeholder: v.string(),
  kind,
  /** The caller's key or token; null for those of the instance. */
  credential: v.nullable(v.string()),
  /** The caller's base URL; null for the Anthropic API. */
  baseUrl: v.nullable(v.pipe(v.string(), v.url())),
  /** The caller's ANTHROPIC_CUSTOM_HEADERS. */
  headers: v.array(v.tuple([v.string(), v.string()])),
  /** The caller's proxy and certificates. */
  upstream: upstreamSchema,
  /** Whether only the listener in the session's own worker may be used. */
  isolated: v.boolean(),
});

export type Grant = v.InferOutput<typeof grantSchema>;

type Home = Pick<Instance, "home" | "owner">;

/** Certificates of a host; as large as in egress/upstream.ts. */
const maxBytes = 4 * 1024 ** 2;

export function newPlaceholder(): string {
  return placeholderOf(randomBytes(32).toString("base64url"));
}

export function readGrant(
  { home }: Pick<Instance, "home">,
  claudeHome: string,
): Grant | undefined {
  return readJson(fileOf({ home }, claudeHome), grantSchema, maxBytes);
}

export function writeGrant({ home, owner }: Home, grant: Grant): void {
  ensureDirectory(home.relay, 0o700, owner);
  ensureDirectory(home.relayGrants, 0o700, owner);
  const text = JSON.stringify(grant);
  // Only a caller's credential is needed after a crash: at a start, all else is made anew.
  const sync = grant.credential !== null;
  stageFile(fileOf({ home }, grant.home), text, owner, { sync }).commit();
}

/** Removes a grant and returns it. */
export function takeGrant(
  { home }: Pick<Instance, "home">,
  claudeHome: string,
): Grant | undefined {
  const grant = readGrant({ home }, claudeHome);
  if (grant) removeGrant({ home }, claudeHome);
  return grant;
}

/** For a Claude home that is about to be moved. The parent drops the former grant later. */
export function copyGrant(instance: Home, from: string, to: string): void {
  const grant = readGrant(instance, from);
  if (grant) writeGrant(instance, { ...grant, home: to });
  else removeGrant(instance, to);
}

export function removeGrant(
  { home }: Pick<Instance, "home">,
  claudeHome: string,
): void {
  rmSync(fileOf({ home }, claudeHome), { force: true });
}

/**
 * Removes the callers' credentials; those of the instance are not in grants. A running
 * session keeps its placeholder, and uses it when a key is stored.
 */
export function forgetGrants(instance: Home): void {
  for (const grant of readGrants(instance)) {
    const { kind, upstream } = grant;
    writeGrant(instance, {
      ...grant,
      kind: kind === "caller" ? "key" : kind,
      credential: null,
      headers: [],
      upstream: {
        ...upstream,
        http: withoutPassword(upstream.http),
        https: withoutPassword(upstream.https),
      },
    });
  }
}

/** Null for a proxy that asks for one, too. */
function withoutPassword(proxy: string | null): string | null {
  return proxy !== null && new URL(proxy).password !== "" ? null : proxy;
}

export function readGrants({ home }: Pick<Instance, "home">): Grant[] {
  return namesIn(home.relayGrants).flatMap((name) =>
    name.endsWith(".json")
      ? readJson(join(home.relayGrants, name), grantSchema, maxBytes) ?? []
      : []
  );
}

function fileOf(
  { home }: Pick<Instance, "home">,
  claudeHome: string,
): string {
  const digest = createHash("sha256").update(claudeHome).digest("hex");
  return join(home.relayGrants, `${digest.slice(0, 32)}.json`);
}
