// Which worker speaks. All of them share a network namespace, so each gets a token in its
// own Claude home, which it sends with every request. A token is made from the home's name
// and a key of the instance: nothing has to be kept or told when workers come and go.

import { Buffer } from "node:buffer";
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { type Owner, writeNew } from "../std/owned.ts";
import type { HomePaths } from "../instance/paths.ts";

export const tokenHeader = "X-HAL9000-Worker";

/** Whoever has no token, or one that is not ours: they all count as one worker. */
export const anonymous = "";

/** Of a Claude home, as sessionHome() and workerHome() give it. */
export function workerToken(key: string, claudeHome: string): string {
  const digest = createHmac("sha256", key)
    .update(`mcp worker\n${claudeHome}`)
    .digest("base64url");
  return `${Buffer.from(claudeHome).toString("base64url")}.${digest}`;
}

/** The Claude home that a token was made for, or `anonymous`. */
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

/** The instance's key, which is made when it is first needed. */
export function tokenKey({ mcpKey }: HomePaths, owner: Owner): string {
  try {
    return readFileSync(mcpKey, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    writeNew(mcpKey, randomBytes(32).toString("base64url"), owner);
    return readFileSync(mcpKey, "utf8");
  }
}
