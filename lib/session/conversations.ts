// The conversations of a session: files in its Claude home. A worker can fill that
// directory with files, so the time and the number of files are limited.

import { join } from "node:path";
import { Directory, type EntryStat } from "../std/directory.ts";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { sessionHome } from "../home/worker-home.ts";
import { type FileEnd, readFileEnd } from "../std/plain-file.ts";

/** Where the CLI stores the conversations of /workspace. */
const directoryParts = ["projects", "-workspace"];

/** Time limit of one command for scanning all homes. */
export const scanTimeoutMs = 150;

/** Most entries to scan in one home: far more than a session ever has. */
const maxFiles = 5000;

/** Entries between two checks of the deadline, so at least these are scanned. */
const checkEvery = 500;

/** The session's home holds too many files to scan in time. */
export class TooMany extends Failure {
  constructor(session: string) {
    const path = [sessionHome(session), ...directoryParts].join("/");
    super("failed", `Session "${session}" holds too many files`, {
      hint: `Remove those that are no conversations from ${path}`,
    });
  }
}

/**
 * Calls `act` with each conversation file until it returns true. Empty files are
 * skipped. Throws TooMany if not all entries could be scanned before
 * `deadline`, in milliseconds since 1970.
 */
function eachConversation(
  { home }: Pick<Instance, "home">,
  session: string,
  deadline: number,
  act: (stat: EntryStat, name: string) => boolean,
): void {
  const directory = enter(join(home.home, sessionHome(session)));
  if (!directory) return;
  try {
    let scanned = 0;
    for (const { name, kind } of directory.entries()) {
      const late = ++scanned % checkEvery === 0 && Date.now() > deadline;
      if (late || scanned > maxFiles) {
        throw new TooMany(session);
      }
      if (kind !== "file" || !name.endsWith(".jsonl")) continue;
      const stat = directory.stat(name);
      if (stat?.kind !== "file" || stat.sizeBytes === 0) continue;
      if (act(stat, name)) return;
    }
  } finally {
    directory.close();
  }
}

function enter(claudeHome: string): Directory | undefined {
  let directory = Directory.open(claudeHome);
  for (const part of directoryParts) {
    const next = directory?.enter(part);
    directory?.close();
    directory = next;
  }
  return directory;
}

/** Whether there is a conversation: without one, `claude --continue` exits at once. */
export function hasConversation(
  instance: Pick<Instance, "home">,
  session: string,
): boolean {
  let found = false;
  try {
    eachConversation(
      instance,
      session,
      Date.now() + scanTimeoutMs,
      () => found = true,
    );
  } catch (error) {
    if (!(error instanceof TooMany)) throw error;
  }
  return found;
}

/**
 * Time of the session's last message, in milliseconds since 1970; 0 if there is none.
 * Throws TooMany.
 */
export function lastSaidAt(
  instance: Pick<Instance, "home">,
  session: string,
  deadline: number,
): number {
  let last = 0;
  eachConversation(instance, session, deadline, ({ mtimeMs }) => {
    last = Math.max(last, mtimeMs);
    return false;
  });
  return last;
}

/** Name of the file with the session's last message; undefined if there is none. */
export function latestConversation(
  instance: Pick<Instance, "home">,
  session: string,
): string | undefined {
  let latest: string | undefined;
  let latestMs = -1;
  const deadline = Date.now() + scanTimeoutMs;
  eachConversation(instance, session, deadline, ({ mtimeMs }, name) => {
    if (mtimeMs > latestMs) [latest, latestMs] = [name, mtimeMs];
    return false;
  });
  return latest;
}

/** Reads a conversation from an offset, but at most its last `maxBytes`. */
export function readConversation(
  { home }: Pick<Instance, "home">,
  session: string,
  name: string,
  { offset, maxBytes }: { offset: number; maxBytes: number },
): FileEnd | undefined {
  const directory = enter(join(home.home, sessionHome(session)));
  try {
    return directory && readFileEnd(directory.at(name), offset, maxBytes);
  } finally {
    directory?.close();
  }
}

/**
 * The last `maxBytes` of the conversation that was written to last; "" if there is none.
 * Throws TooMany.
 */
export function conversationEnd(
  instance: Pick<Instance, "home">,
  session: string,
  maxBytes: number,
): string {
  const name = latestConversation(instance, session);
  const end = name === undefined
    ? undefined
    : readConversation(instance, session, name, { offset: 0, maxBytes });
  return end?.bytes.toString("utf8") ?? "";
}
