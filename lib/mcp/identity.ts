// Identifies workers. They share a network namespace, so each has a token in its own
// Claude home and sends it with every request. A token is derived from the home's name and
// the instance's key, so no list of tokens has to be stored.

import { Buffer } from "node:buffer";
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { type Owner, writeNew } from "../std/owned.ts";
import type { HomePaths } from "../instance/paths.ts";

export const tokenHeader = "X-HAL9000-Worker";

/** All clients without a valid token count as one worker. */
export const anonymous = "";

/** The token of a Claude home, as returned by sessionHome() and workerHome(). */
export function workerToken(key: string, claudeHome: string): string {
  const digest = createHmac("sha256", key)
    .update(`mcp worker\n${claudeHome}`)
    .digest("base64url");
  return `${Buffer.from(claudeHome).toString("base64url")}.${digest}`;
}

/** The Claude home of a token, or `anonymous` if the token is invalid. */
export function workerOf(
  key: string,
  token: string | null | undefined,
): string {
  const [name = ""] = token?.split(".") ?? [];
  const worker = Buffer.from(name, "base64url").toString();
  const expected = Buffer.from(workerToken(key, worker));
  const given = Buffer.from(token ?? "");
  const isOurs = given.length === expected.length &&
    timingSafeEqual(given, expected);
  return isOurs ? worker : anonymous;
}

/** The instance's key, created on first use. */
export function tokenKey({ mcpKey }: HomePaths, owner: Owner): string {
  try {
    return readFileSync(mcpKey, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    writeNew(mcpKey, randomBytes(32).toString("base64url"), owner);
    return readFileSync(mcpKey, "utf8");
  }
}
