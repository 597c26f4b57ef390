// What the CLI says of its session: it works, waits for somebody, or idles. From
// the file that it keeps of each of its processes; where it keeps none, from what
// its hooks noted (docker/note-activity.sh). A worker can write both.

import * as v from "valibot";
import { type Directory, inDirectory } from "../std/directory.ts";
import { parseJson } from "../std/json.ts";
import { plainText } from "../std/plain-file.ts";
import { unprintable } from "../std/text.ts";

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
const maxBytes = 16 * 1024;
const maxFiles = 20;
const maxEntries = 1000;

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
  const state = parseJson(stateSchema, text);
  return state && {
    activity: activities[state.status],
    waitingFor: state.waitingFor ?? null,
  };
}

/** Within a Claude home: what the hooks noted, and the CLI's own directory. */
export const notedFile = "hal9000-activity.json";
export const ownFiles = "sessions";

/**
 * As the files of a Claude home have it: they go with the CLI, see
 * docker/claude-session.sh. Undefined where none is there.
 */
export function readCliState(claudeHome: string): CliState | undefined {
  return inDirectory(claudeHome, (home) => {
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

function stateFiles(directory: Directory): string[] {
  const texts: string[] = [];
  let looked = 0;
  for (const { name, kind } of directory.entries()) {
    if (++looked > maxEntries || texts.length >= maxFiles) break;
    if (kind !== "file" || !name.endsWith(".json")) continue;
    texts.push(plainText(directory.at(name), { maxBytes }) ?? "");
  }
  return texts;
}
