// Ports in the shared namespace: each session has a range of its own, so that
// the servers of two projects need not meet.

import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { Failure } from "../std/errors.ts";
import type { Instance } from "./instance.ts";
import { type Owner, writeNew } from "../std/owned.ts";
import type { HomePaths } from "./paths.ts";
import { clearPlace, plainText } from "../std/plain-file.ts";

/** Below those that the kernel gives out by itself, from 32768. */
const firstPort = 20_000;
export const portsEach = 20;
const ranges = 500;

/** They all, in words. */
export const sessionPorts = `the sessions (${firstPort} to ${
  firstPort + ranges * portsEach - 1
})`;

/** Whether it may come to be of a session's range. */
export function isSessionPort(port: number): boolean {
  return port >= firstPort && port < firstPort + ranges * portsEach;
}

/** The first port of the range that a name leads to, `attempt` ranges further. */
export function portBase(session: string, attempt: number): number {
  const digest = createHash("sha256").update(session).digest();
  const slot = (digest.readUInt32BE(0) + attempt) % ranges;
  return firstPort + slot * portsEach;
}

/**
 * Reserves a range for a session and gives its first port; the same where it has
 * one. Throws a `resources` Failure where all are taken.
 */
export function reservePorts(
  { home, owner }: Pick<Instance, "home" | "owner">,
  session: string,
): number {
  for (let attempt = 0; attempt < ranges; attempt++) {
    const base = portBase(session, attempt);
    if (isReserved(home, owner, base, session)) return base;
  }
  throw new Failure("resources", "Every range of ports is a session's", {
    hint: "Remove sessions that are over: claudy sessions rm",
  });
}

/** Whether `session` has the range now: another may be after it too. */
function isReserved(
  home: HomePaths,
  owner: Owner,
  base: number,
  session: string,
): boolean {
  const path = rangeFile(home, base);
  if (writeNew(path, session, owner)) return true;
  // The name of a session; what else is there holds nothing.
  const holder = plainText(path, { maxBytes: 255 }) ?? "";
  if (holder === session) return true;
  // Left by a session that was removed while we were killed.
  if (holder !== "" && existsSync(home.session(holder))) return false;
  clearPlace(path);
  return writeNew(path, session, owner);
}

export function freePorts(
  { home }: Pick<Instance, "home">,
  base: number,
): void {
  clearPlace(rangeFile(home, base));
}

function rangeFile({ ports }: HomePaths, base: number): string {
  return join(ports, String(base));
}
