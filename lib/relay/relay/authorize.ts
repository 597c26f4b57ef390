// Decides whose request it is, and with which credential it is sent.

import type { IncomingHttpHeaders } from "node:http";
import type { Grant } from "../grant.ts";
import { isPlaceholder } from "../names.ts";
import type { Client, State } from "../state.ts";
import { refused } from "./refusal.ts";

/** Undefined for a connection from the shared network. */
export type Origin = string | undefined;

export interface Session {
  client: Client;
  grant: Grant;
}

/** The texts that a request authenticates with. */
export function credentialsIn(headers: IncomingHttpHeaders): string[] {
  const key = headers["x-api-key"];
  const bearer = headers.authorization;
  return [
    ...(key === undefined ? [] : [key].flat()),
    ...(bearer === undefined ? [] : [bearer.replace(/^Bearer +/i, "")]),
  ];
}

/**
 * The session of a request. An isolated worker is known by its listener; in the shared
 * network, by the placeholder. Undefined if it is not known, or not yet.
 */
export function sessionOf(
  state: State,
  origin: Origin,
  given: string[],
): Session | undefined {
  const clients = Object.entries(state.workers);
  for (const [container, client] of clients) {
    const grant = state.grants[client.home];
    if (!grant) continue;
    const isOwn = origin === undefined
      ? !grant.isolated && given.includes(grant.placeholder)
      : container === origin;
    if (isOwn) return { client, grant };
  }
  return undefined;
}

/** Throws Refused unless all credentials in a request are the session's placeholder. */
export function checkPlaceholder(
  { grant }: Session,
  given: string[],
  method: string,
): void {
  const own = grant.kind === "own"
    ? given.every((text) => !isPlaceholder(text))
    : given.every((text) => text === grant.placeholder);
  if (!own) {
    throw refused(
      401,
      "authentication_error",
      "This is not the placeholder of this session",
    );
  }
  if (given.length === 0 && method === "POST" && grant.kind !== "own") {
    throw refused(401, "authentication_error", "There is no placeholder");
  }
}

/** What is sent in place of the placeholder. Throws Refused if there is nothing. */
export function credentialFor({ grant }: Session, state: State): string {
  const { kind, credential } = grant;
  const { key, token, login } = state.credentials;
  const found = kind === "key"
    ? key
    : kind === "token"
    ? token
    : kind === "login"
    ? login
    : credential;
  if (found !== null) return found;
  // Not 401: the CLI would forget its login.
  throw refused(
    403,
    "permission_error",
    "HAL-9000 has no valid credential for this session: log in with claudy login",
  );
}
