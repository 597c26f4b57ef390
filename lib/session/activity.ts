// The activity of a session: whether Claude is working, waiting for input, or idle.
// Read from the status file that the CLI writes for each of its processes. If there
// is none, from the file that its hooks write (docker/note-activity.sh). A worker can
// write both, so neither is trusted.

import * as v from "valibot";
import { type Directory, inDirectory } from "../std/directory.ts";
import { parseJson } from "../std/json.ts";
import { clearPath, plainText } from "../std/plain-file.ts";
import { unprintable } from "../std/text.ts";
import { clockText } from "../usage/days.ts";
import { limitedUntil, type Status } from "../usage/status.ts";

export type Activity =
  | "working"
  | "waiting"
  | "idle"
  /** It waits until the account's limit resets. */
  | "limited"
  | "starting"
  | "paused"
  | "stopped"
  /** The worker runs, but Claude does not. */
  | "exited"
  /** The worker disappeared without being stopped. */
  | "lost"
  /** The worker's network namespace no longer exists: no services, no API. */
  | "offline"
  /** The worker does not respond. */
  | "unknown";

export interface CliState {
  activity: Activity;
  /** What the session is waiting for, as reported by the CLI. */
  waitingFor: string | null;
}

const stateSchema = v.object({
  status: v.picklist(["busy", "waiting", "idle"]),
  waitingFor: v.optional(v.pipe(
    v.string(),
    v.maxLength(1000),
    // Printed on terminals and passed to the user's commands.
    v.transform((text) => text.replace(unprintable, " ").trim()),
  )),
});

const activities = {
  busy: "working",
  waiting: "waiting",
  idle: "idle",
} as const;

/** By priority: if a session has several processes, the first of these is shown. */
const priority: Activity[] = ["waiting", "working", "idle"];

/** The CLI writes fewer and smaller files: the rest is ignored. */
const maxBytes = 16 * 1024;
const maxFiles = 20;
const maxEntries = 1000;

/**
 * The state from the texts of the CLI's status files, else from the text that the
 * hooks wrote. Undefined if none of them is valid.
 */
export function cliState(
  files: string[],
  hookText: string,
): CliState | undefined {
  const states = files.flatMap((file) => parseState(file) ?? []);
  states.sort((a, b) =>
    priority.indexOf(a.activity) - priority.indexOf(b.activity)
  );
  return states[0] ?? parseState(hookText);
}

/** Undefined for a half-written file, or one that the CLI did not write. */
export function parseState(text: string): CliState | undefined {
  const state = parseJson(stateSchema, text);
  return state && {
    activity: activities[state.status],
    waitingFor: state.waitingFor ?? null,
  };
}

/** The state of a session whose requests may be refused until a limit resets. */
export function withLimit(
  state: CliState,
  status: Status | undefined,
  session: string | null,
  now: number,
): CliState {
  // One that waits for an answer does so in any case.
  const sends = state.activity === "working" || state.activity === "idle";
  const until = sends ? limitedUntil(status, session, now) : undefined;
  if (until === undefined) return state;
  const waitingFor = `resets at ${clockText(until, now)}`;
  return { activity: "limited", waitingFor };
}

/** In a Claude home: the file that the hooks write, and the CLI's own directory. */
export const notedFile = "hal9000-activity.json";
export const ownFiles = "sessions";

/**
 * The state from the files of a Claude home. Undefined if there are none:
 * docker/claude-session.sh removes them when the CLI exits.
 */
export function readCliState(claudeHome: string): CliState | undefined {
  return readIn(claudeHome, (home) => {
    const own = home.enter(ownFiles);
    try {
      return cliState(
        own ? stateFiles(own) : [],
        plainText(home.at(notedFile), { maxBytes }) ?? "",
      );
    } finally {
      own?.close();
    }
  });
}

/** A worker can change the modes of its files, which must not stop what lists them. */
function readIn<T>(
  claudeHome: string,
  read: (home: Directory) => T,
): T | undefined {
  try {
    return inDirectory(claudeHome, read);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EACCES") return undefined;
    throw error;
  }
}

function stateFiles(directory: Directory): string[] {
  const texts: string[] = [];
  let scanned = 0;
  for (const { name, kind } of directory.entries()) {
    if (++scanned > maxEntries || texts.length >= maxFiles) break;
    if (kind !== "file" || !name.endsWith(".json")) continue;
    texts.push(plainText(directory.at(name), { maxBytes }) ?? "");
  }
  return texts;
}

/** How Claude ended in a worker. */
export interface Ending {
  exitCode: number;
  /** The last lines of its terminal. */
  lines: string[];
  atMs: number;
}

/** In a Claude home: written by docker/claude-session.sh when Claude has ended. */
const endingFile = "hal9000-ended";

/** How the last Claude ended; undefined while it runs, and before it was started. */
export function readEnding(claudeHome: string): Ending | undefined {
  return readIn(claudeHome, (home) => {
    const stat = home.stat(endingFile);
    const text = plainText(home.at(endingFile), { maxBytes });
    const [code = "", ...lines] = text?.trimEnd().split("\n") ?? [];
    if (!stat || !/^\d{1,3}$/.test(code)) return undefined;
    return {
      exitCode: Number(code),
      lines: lines.map((line) => line.replace(unprintable, " ").trimEnd())
        .filter(Boolean).slice(-20),
      atMs: stat.mtimeMs,
    };
  });
}

/**
 * Removes what a Claude has left that was killed with its worker, so that the next
 * worker does not seem to run one.
 */
export function forgetActivity(claudeHome: string): void {
  inDirectory(claudeHome, (home) => {
    clearPath(home.at(notedFile));
    clearPath(home.at(endingFile));
    const own = home.enter(ownFiles);
    if (!own) return;
    let scanned = 0;
    for (const { name, kind } of own.entries()) {
      if (++scanned > maxEntries) break;
      if (kind === "file") clearPath(own.at(name));
    }
    own.close();
  });
}
