// The instance's login, made with the CLI in a helper container. The refresh token is
// single-use and is not given to workers: only the parent refreshes the login. Workers
// mount a file with the access token, which is replaced before it expires.

import { existsSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as v from "valibot";
import { messageOf } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { ensureDirectory, writeAtomic } from "../std/owned.ts";
import type { HomePaths } from "../instance/paths.ts";
import { readJson } from "../std/json.ts";

/** The CLI's token endpoint and client id, taken from version 2.1.296. */
const tokenUrl = "https://platform.claude.com/v1/oauth/token";
const clientId = "9d1c250a-e61b-44d9-88ed-5944d1962f5e";

const loginSchema = v.looseObject({
  claudeAiOauth: v.looseObject({
    accessToken: v.string(),
    refreshToken: v.string(),
    /** Milliseconds since 1970. */
    expiresAt: v.number(),
    scopes: v.optional(v.array(v.string())),
  }),
});

export type Login = v.InferOutput<typeof loginSchema>;

const grantSchema = v.object({
  access_token: v.string(),
  refresh_token: v.optional(v.string()),
  /** Seconds. */
  expires_in: v.number(),
});

export const loginFile = ".credentials.json";

/** Limit, since the file is written by a container during the login. */
const maxBytes = 64 * 1024;

export function isLoggedIn(home: HomePaths): boolean {
  return readLogin(home) !== undefined;
}

export function readLogin(home: HomePaths): Login | undefined {
  return readJson(join(home.login, loginFile), loginSchema, maxBytes);
}

/** Stores a login that the CLI has made elsewhere; false if the file is none. */
export function keepLogin(
  { home, owner }: Pick<Instance, "home" | "owner">,
  path: string,
): boolean {
  const login = readJson(path, loginSchema, maxBytes);
  if (!login) return false;
  ensureDirectory(home.login, 0o700, owner);
  writeAtomic(join(home.login, loginFile), JSON.stringify(login), owner);
  return true;
}

/** Refresh this long before the token expires, or at half of a shorter lifetime. */
const refreshAheadMs = 10 * 60_000;

/** Assumed lifetime of a token that the CLI has obtained. */
const defaultLifetimeMs = 8 * 60 * 60_000;

/** When to refresh a token, in milliseconds since 1970. */
export function refreshAt(
  expiresAt: number,
  lifetimeMs = defaultLifetimeMs,
): number {
  return expiresAt - Math.min(refreshAheadMs, lifetimeMs / 2);
}

/** The login for workers, without the refresh token. */
export function withoutRefresh({ claudeAiOauth }: Login): object {
  const { refreshToken: _, ...rest } = claudeAiOauth;
  return { claudeAiOauth: { ...rest, refreshToken: "" } };
}

/** The token endpoint has rejected the login: it must be made again. */
class LoginRejected extends Error {}

type Home = Pick<Instance, "home" | "owner">;

/** Others, such as 429, say nothing about the refresh token. */
const rejections = [400, 401, 403];

/** Gets new tokens and stores them at once: the old refresh token is used up. */
async function refresh({ home, owner }: Home, login: Login): Promise<Login> {
  const { refreshToken, scopes } = login.claudeAiOauth;
  const response = await fetch(tokenUrl, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      grant_type: "refresh_token",
      refresh_token: refreshToken,
      client_id: clientId,
      ...(scopes ? { scope: scopes.join(" ") } : {}),
    }),
    signal: AbortSignal.timeout(30_000),
  });
  const text = await response.text();
  if (rejections.includes(response.status)) {
    // Without the response body, which may contain the token.
    throw new LoginRejected(`the login was rejected (HTTP ${response.status})`);
  }
  if (!response.ok) {
    throw new Error(`the server returned HTTP ${response.status}`);
  }
  const grant = v.parse(grantSchema, JSON.parse(text));
  const next: Login = {
    ...login,
    claudeAiOauth: {
      ...login.claudeAiOauth,
      accessToken: grant.access_token,
      refreshToken: grant.refresh_token ?? refreshToken,
      expiresAt: Date.now() + grant.expires_in * 1000,
    },
  };
  writeAtomic(join(home.login, loginFile), JSON.stringify(next), owner);
  return next;
}

/** Publishes the login to workers; readable by all, since their users differ. */
function publish({ home, owner }: Home, login: Login): void {
  const text = JSON.stringify(withoutRefresh(login));
  writeAtomic(join(home.credentials, loginFile), text, owner, 0o644);
}

function withdraw({ home }: Home): void {
  rmSync(join(home.credentials, loginFile), { force: true });
}

/** How often the login file and the expiry time are checked. */
const pollIntervalMs = 1000;

/** Backoff after a failed refresh, doubled each time. */
const minBackoffMs = 2000;
const maxBackoffMs = 5 * 60_000;

/**
 * At most one early refresh in this time: a worker may be able to make the API refuse its
 * requests, but must not be able to use up the login of all.
 */
const earlyEveryMs = 10 * 60_000;

/** Requests to refresh the login early. */
export class LoginRefresh {
  readonly #now: () => number;
  #refused = "";
  #grantedAt = -Infinity;
  #wake: () => void = () => {};

  constructor(now = () => performance.now()) {
    this.#now = now;
  }

  /** The API has refused this access token, although it has not expired. */
  refuse(accessToken: string): void {
    this.#refused = accessToken;
    this.#wake();
  }

  isDue({ claudeAiOauth }: Login): boolean {
    return claudeAiOauth.accessToken === this.#refused &&
      this.#now() - this.#grantedAt >= earlyEveryMs;
  }

  /** The login was refreshed because it was refused. */
  granted(): void {
    this.#grantedAt = this.#now();
  }

  /** Resolves after the time, or when a token is refused. */
  async wait(timeMs: number, stop: AbortSignal): Promise<void> {
    const woken = new Promise<void>((resolve) => this.#wake = resolve);
    const over = new AbortController();
    const signal = AbortSignal.any([stop, over.signal]);
    const late = sleep(timeMs, undefined, { signal }).catch(() => {});
    await Promise.race([woken, late]);
    over.abort();
  }
}

/** Runs in the parent: refreshes and publishes the login until `stop` is aborted. */
export async function keepLoginFresh(
  instance: Home,
  early: LoginRefresh,
  stop: AbortSignal,
  log: Log,
): Promise<void> {
  let publishedVersion = "";
  let lifetimeMs: number | undefined;
  let backoffMs = 0;
  let retryAt = 0;
  let rejected = false;
  const pause = () => {
    backoffMs = Math.min(Math.max(backoffMs * 2, minBackoffMs), maxBackoffMs);
    retryAt = Date.now() + backoffMs;
  };
  while (!stop.aborted) {
    try {
      const version = versionOf(instance.home);
      const login = readLogin(instance.home);
      if (version !== publishedVersion) {
        publishedVersion = version;
        rejected = false;
        if (login) publish(instance, login);
        else withdraw(instance);
      }
      const isEarly = login !== undefined && early.isDue(login);
      const due = login !== undefined && !rejected && Date.now() > retryAt &&
        (isEarly ||
          Date.now() >= refreshAt(login.claudeAiOauth.expiresAt, lifetimeMs));
      if (due) {
        const next = await refresh(instance, login);
        if (isEarly) early.granted();
        publish(instance, next);
        publishedVersion = versionOf(instance.home);
        lifetimeMs = next.claudeAiOauth.expiresAt - Date.now();
        backoffMs = 0;
        log("Refreshed the login");
      }
    } catch (error) {
      if (error instanceof LoginRejected) {
        rejected = true;
        withdraw(instance);
        log(`Log in again with claudy login: ${error.message}`);
      } else {
        pause();
        log(
          `Cannot refresh the login: ${
            messageOf(error)
          }; retrying in ${backoffMs} ms`,
        );
      }
    }
    await early.wait(pollIntervalMs, stop);
  }
}

function versionOf(home: HomePaths): string {
  const path = join(home.login, loginFile);
  if (!existsSync(path)) return "";
  const { mtimeMs, ino } = statSync(path);
  return `${mtimeMs} ${ino}`;
}
