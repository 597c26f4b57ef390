// What the CLI says of its session: it works, waits for somebody, or idles. From
// the file that it keeps of each of its processes; where it keeps none, from what
// its hooks noted (docker/note-activity.sh). A worker can write both.

import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readdirSync,
  readSync,
} from "node:fs";
import { Buffer } from "node:buffer";
import { join } from "node:path";
import * as v from "valibot";
import { unprintable } from "./text.ts";

export type Activity =
  | "working"
  | "waiting"
  | "idle"
  | "starting"
  | "paused"
  | "stopped"
  /** Its worker's network has ended: nothing reaches the services or the API. */
  | "offline"
  /** Its worker does not answer. */
  | "unknown";

export interface CliState {
  activity: Activity;
  /** What it waits for, in the CLI's words. */
  waitingFor: string | null;
}

const stateSchema = v.object({
  status: v.picklist(["busy", "waiting", "idle"]),
  waitingFor: v.optional(v.pipe(
    v.string(),
    v.maxLength(1000),
    // It is shown, and given to commands.
    v.transform((text) => text.replace(unprintable, " ").trim()),
  )),
});

const activities = {
  busy: "working",
  waiting: "waiting",
  idle: "idle",
} as const;

/** Of these, one says more of what a person should know than the next. */
const order: Activity[] = ["waiting", "working", "idle"];

/** Files that are larger, or more, are none of the CLI's. */
const mostBytes = 16 * 1024;
const mostFiles = 20;

/** From the texts of its files, and what the hooks noted; undefined of neither. */
export function cliState(
  files: string[],
  noted: string,
): CliState | undefined {
  const states = files.flatMap((file) => parseState(file) ?? []);
  states.sort((a, b) => order.indexOf(a.activity) - order.indexOf(b.activity));
  return states[0] ?? parseState(noted);
}

/** Undefined for a file that is being written, or is nothing of the CLI's. */
export function parseState(text: string): CliState | undefined {
  try {
    const { status, waitingFor } = v.parse(stateSchema, JSON.parse(text));
    return { activity: activities[status], waitingFor: waitingFor ?? null };
  } catch {
    return undefined;
  }
}

/** Within a Claude home: what the hooks noted, and the CLI's own directory. */
export const notedFile = "hal9000-activity.json";
export const ownFiles = "sessions";

/**
 * As the files of a Claude home have it: they go with the CLI, see
 * docker/claude-session.sh. Undefined where none is there.
 */
export function readCliState(claudeHome: string): CliState | undefined {
  const directory = join(claudeHome, ownFiles);
  return cliState(
    namesIn(directory).map((name) => readSmall(join(directory, name))),
    readSmall(join(claudeHome, notedFile)),
  );
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory).filter((name) => name.endsWith(".json"))
      .slice(0, mostFiles);
  } catch {
    return []; // not there yet
  }
}

/** A plain file that a worker wrote; "" for anything else it laid there. */
function readSmall(path: string): string {
  let file: number;
  try {
    const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
    file = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  } catch {
    return "";
  }
  try {
    const stat = fstatSync(file);
    if (!stat.isFile() || stat.size > mostBytes) return "";
    const bytes = Buffer.alloc(mostBytes);
    return bytes.toString("utf8", 0, readSync(file, bytes));
  } finally {
    closeSync(file);
  }
}
