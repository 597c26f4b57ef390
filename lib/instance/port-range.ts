// Port ranges in the shared namespace. Each session has its own range, so that servers of
// two projects do not conflict.

import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { Failure } from "../std/errors.ts";
import type { Instance } from "./instance.ts";
import { type Owner, writeNew } from "../std/owned.ts";
import type { HomePaths } from "./paths.ts";
import { clearPath, plainText } from "../std/plain-file.ts";

/** Below the kernel's ephemeral ports, which start at 32768. */
const firstPort = 20_000;
export const portsEach = 20;
const ranges = 500;

/** All session ports, for messages. */
export const sessionPorts = `the sessions (${firstPort} to ${
  firstPort + ranges * portsEach - 1
})`;

/** Whether the port belongs to the ranges of sessions. */
export function isSessionPort(port: number): boolean {
  return port >= firstPort && port < firstPort + ranges * portsEach;
}

/** The first port of the range derived from the name, plus `attempt` ranges. */
export function portBase(session: string, attempt: number): number {
  const digest = createHash("sha256").update(session).digest();
  const slot = (digest.readUInt32BE(0) + attempt) % ranges;
  return firstPort + slot * portsEach;
}

/**
 * Reserves a range for a session, or finds its reserved range. Returns the first port.
 * Throws a `resources` Failure if all ranges are in use.
 */
export function reservePorts(
  { home, owner }: Pick<Instance, "home" | "owner">,
  session: string,
): number {
  for (let attempt = 0; attempt < ranges; attempt++) {
    const base = portBase(session, attempt);
    if (isReserved(home, owner, base, session)) return base;
  }
  throw new Failure("resources", "All port ranges are in use by sessions", {
    hint: "Remove sessions that you no longer need: claudy sessions rm NAME",
  });
}

/** Reserves the range, and returns whether `session` has it. */
function isReserved(
  home: HomePaths,
  owner: Owner,
  base: number,
  session: string,
): boolean {
  const path = rangeFile(home, base);
  if (writeNew(path, session, owner)) return true;
  const holder = holderOf(path);
  if (holder === session) return true;
  // Left over if the removal of a session was interrupted.
  if (holder !== "" && existsSync(home.session(holder))) return false;
  clearPath(path);
  return writeNew(path, session, owner);
}

/** Frees the range of a session, unless another session has it by now. */
export function freePorts(
  { home }: Pick<Instance, "home">,
  session: string,
  base: number,
): void {
  const path = rangeFile(home, base);
  if (holderOf(path) === session) clearPath(path);
}

/** The name in the file; any other content does not reserve the range. */
function holderOf(path: string): string {
  return plainText(path, { maxBytes: 255 }) ?? "";
}

function rangeFile({ ports }: HomePaths, base: number): string {
  return join(ports, String(base));
}
