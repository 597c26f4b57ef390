// Decides whose request it is, and with which credential it is sent.

import { forwardedHeaders } from "../../egress/proxy/headers.ts";
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

/** What a request authenticates with. */
export interface Given {
  header: "x-api-key" | "authorization";
  /** "Bearer ", or empty. */
  scheme: string;
  text: string;
}

/** From all headers: a server may read another one of several than a parser here. */
export function credentialsIn(rawHeaders: readonly string[]): Given[] {
  const given: Given[] = [];
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const header = rawHeaders[at]?.toLowerCase();
    const value = rawHeaders[at + 1] ?? "";
    if (header === "x-api-key") given.push({ header, scheme: "", text: value });
    if (header !== "authorization") continue;
    const text = value.replace(/^Bearer +/i, "");
    given.push({ header, scheme: text === value ? "" : "Bearer ", text });
  }
  return given;
}

/**
 * The session of a request. An isolated worker is known by its listener; in the shared
 * network, by the placeholder. Undefined if it is not known, or not yet.
 */
export function sessionOf(
  state: State,
  origin: Origin,
  given: Given[],
): Session | undefined {
  const clients = Object.entries(state.workers);
  for (const [container, client] of clients) {
    const grant = state.grants[client.home];
    if (!grant) continue;
    const isFound = origin === undefined
      ? !grant.isolated && given.some(({ text }) => text === grant.placeholder)
      : container === origin;
    if (isFound) return { client, grant };
  }
  return undefined;
}

/** Whether all credentials in a request are those of the session. */
export function isOwn({ grant }: Session, given: Given[]): boolean {
  return grant.kind === "own"
    ? given.every(({ text }) => !isPlaceholder(text))
    : given.every(({ text }) => text === grant.placeholder);
}

/** Throws Refused unless all credentials in a request are the session's placeholder. */
export function checkPlaceholder(
  session: Session,
  given: Given[],
  method: string,
): void {
  const { grant } = session;
  if (new Set(given.map(({ header }) => header)).size < given.length) {
    throw refused(
      400,
      "invalid_request_error",
      "The request has more than one credential",
    );
  }
  if (!isOwn(session, given)) {
    throw refused(
      401,
      "authentication_error",
      "This is not the placeholder of this session",
    );
  }
  // The API would refuse the credential itself, and so make the relay renew it.
  if (isToken(grant) && given.some(({ scheme }) => scheme === "")) {
    throw refused(
      401,
      "authentication_error",
      "The placeholder of this session is a token: send it as Authorization: Bearer",
    );
  }
  if (given.length === 0 && method === "POST" && grant.kind !== "own") {
    throw refused(401, "authentication_error", "There is no placeholder");
  }
}

/** Whether the API takes it as an OAuth token. */
function isToken({ kind }: Grant): boolean {
  return kind === "token" || kind === "login";
}

/** Without it, the API refuses OAuth tokens. Sent by the CLI, 2.1.296. */
const tokenBeta = "oauth-2025-04-20";

/** Not passed on: replaced, of this connection only, or another way to sign in. */
const left = ["accept-encoding", "cookie", "expect"];

/**
 * A request's headers with the credential, names and values in turn; with its own
 * credentials if that is undefined.
 */
export function withCredential(
  rawHeaders: readonly string[],
  grant: Grant,
  credential: string | undefined,
): string[] {
  const given = credentialsIn(rawHeaders);
  const dropped = new Set([
    ...left,
    ...grant.headers.map(([name]) => name.toLowerCase()),
  ]);
  const headers: [string, string][] = [];
  const passed = forwardedHeaders(rawHeaders);
  for (let at = 0; at + 1 < passed.length; at += 2) {
    const [name = "", value = ""] = [passed[at], passed[at + 1]];
    const lower = name.toLowerCase();
    const isReplaced = credential !== undefined &&
      ["x-api-key", "authorization"].includes(lower);
    if (!dropped.has(lower) && !isReplaced) headers.push([name, value]);
  }
  if (credential !== undefined) {
    for (const { header, scheme } of given) {
      if (!dropped.has(header)) headers.push([header, scheme + credential]);
    }
  }
  headers.push(...grant.headers);
  const needsBeta = credential !== undefined && isToken(grant) &&
    given.length > 0;
  return (needsBeta ? withBeta(headers) : headers).flat();
}

function withBeta(headers: [string, string][]): [string, string][] {
  const isBeta = ([name]: [string, string]) =>
    name.toLowerCase() === "anthropic-beta";
  const betas = headers.filter(isBeta)
    .flatMap(([, value]) => value.split(","))
    .map((beta) => beta.trim())
    .filter((beta) => beta !== "");
  return [
    ...headers.filter((header) => !isBeta(header)),
    ["anthropic-beta", [...new Set([...betas, tokenBeta])].join(",")],
  ];
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
