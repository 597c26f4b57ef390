// The instance's own login, made with the CLI in a helper container. Its refresh
// token is single-use and stays here: the parent alone refreshes, and workers see
// a file with the access token, which is replaced ahead of its end.

import { existsSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as v from "valibot";
import { messageOf } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { writeAtomic } from "../std/owned.ts";
import type { HomePaths } from "../instance/paths.ts";
import { readJson } from "../std/json.ts";

/** The CLI's own, and what it sends there: read from its 2.1.296. */
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

const file = ".credentials.json";

/** A worker writes it while somebody logs in. */
const maxBytes = 64 * 1024;

export function isLoggedIn(home: HomePaths): boolean {
  return readLogin(home) !== undefined;
}

export function readLogin(home: HomePaths): Login | undefined {
  return readJson(join(home.login, file), loginSchema, maxBytes);
}

/** A refresh ahead of the end by this, or by half of a life that is shorter. */
const aheadMs = 10 * 60_000;

/** What a token lives that the CLI has got, as far as is known. */
const usualLifeMs = 8 * 60 * 60_000;

/** When a token is to be refreshed, in milliseconds since 1970. */
export function refreshAt(expiresAt: number, lifeMs = usualLifeMs): number {
  return expiresAt - Math.min(aheadMs, lifeMs / 2);
}

/** For workers: no refresh token, and nothing else that could be used for one. */
export function withoutRefresh({ claudeAiOauth }: Login): object {
  const { refreshToken: _, ...rest } = claudeAiOauth;
  return { claudeAiOauth: { ...rest, refreshToken: "" } };
}

/** What the token endpoint refuses: the login is over. */
class LoginOver extends Error {}

type Home = Pick<Instance, "home" | "owner">;

/** Gets the next tokens, and keeps them before anything else. */
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
  if (response.status >= 400 && response.status < 500) {
    // What it says may hold the token.
    throw new LoginOver(`the login was refused (${response.status})`);
  }
  if (!response.ok) throw new Error(`the answer was ${response.status}`);
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
  writeAtomic(join(home.login, file), JSON.stringify(next), owner);
  return next;
}

/** By rename into the directory that workers see; their users differ. */
function publish({ home, owner }: Home, login: Login): void {
  const text = JSON.stringify(withoutRefresh(login));
  writeAtomic(join(home.credentials, file), text, owner, 0o644);
}

function withdraw({ home }: Home): void {
  rmSync(join(home.credentials, file), { force: true });
}

/** Between two looks at the login and the clock. */
const everyMs = 1000;

/** After an endpoint that is out of reach, doubled each time. */
const firstPauseMs = 2000;
const lastPauseMs = 5 * 60_000;

/** In the parent: keeps what workers see fresh, until `stop` is aborted. */
export async function keepLoginFresh(
  instance: Home,
  stop: AbortSignal,
  log: Log,
): Promise<void> {
  let seen = "";
  let lifeMs: number | undefined;
  let pauseMs = 0;
  let pausedUntil = 0;
  let over = false;
  const pause = () => {
    pauseMs = Math.min(Math.max(pauseMs * 2, firstPauseMs), lastPauseMs);
    pausedUntil = Date.now() + pauseMs;
  };
  while (!stop.aborted) {
    try {
      const version = versionOf(instance.home);
      const login = readLogin(instance.home);
      if (version !== seen) {
        seen = version;
        over = false;
        if (login) publish(instance, login);
        else withdraw(instance);
      }
      const due = login !== undefined && !over && Date.now() > pausedUntil &&
        Date.now() >= refreshAt(login.claudeAiOauth.expiresAt, lifeMs);
      if (due) {
        const next = await refresh(instance, login);
        publish(instance, next);
        seen = versionOf(instance.home);
        lifeMs = next.claudeAiOauth.expiresAt - Date.now();
        pauseMs = 0;
        log("Refreshed the login");
      }
    } catch (error) {
      if (error instanceof LoginOver) {
        over = true;
        withdraw(instance);
        log(`Log in again with claudy login: ${error.message}`);
      } else {
        pause();
        log(
          `Cannot refresh the login: ${
            messageOf(error)
          }; again in ${pauseMs} ms`,
        );
      }
    }
    await sleep(everyMs, undefined, { signal: stop }).catch(() => {});
  }
}

function versionOf(home: HomePaths): string {
  const path = join(home.login, file);
  if (!existsSync(path)) return "";
  const { mtimeMs, ino } = statSync(path);
  return `${mtimeMs} ${ino}`;
}
