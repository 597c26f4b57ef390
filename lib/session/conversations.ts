// The conversations of a session, as the files of its Claude home. A worker can fill
// the directory: it is looked at for no longer than a person waits for a list.

import { join } from "node:path";
import { Directory, type EntryStat } from "../std/directory.ts";
import type { Instance } from "../instance/instance.ts";
import { sessionHome } from "../home/worker-home.ts";

/** Where the CLI keeps the conversations of /workspace. */
const parts = ["projects", "-workspace"];

/** Of all the homes that one command looks at. */
export const lookMs = 150;

/** Files that are looked at in one home: far more than a session ever has. */
const maxFiles = 5000;

/** So many of them however late it is. */
const always = 500;

/** The home of a session holds more than can be looked at. */
export class TooMany extends Error {}

/**
 * Calls `act` with each file of a conversation until it gives true. An empty file is
 * none. Throws TooMany where there are more than can be looked at until `deadline`,
 * in milliseconds since 1970.
 */
function eachConversation(
  { home }: Pick<Instance, "home">,
  session: string,
  deadline: number,
  act: (stat: EntryStat) => boolean,
): void {
  const directory = enter(join(home.home, sessionHome(session)));
  if (!directory) return;
  try {
    let looked = 0;
    for (const { name, kind } of directory.entries()) {
      const late = ++looked % always === 0 && Date.now() > deadline;
      if (late || looked > maxFiles) {
        throw new TooMany(`Session "${session}" holds too many files`);
      }
      if (kind !== "file" || !name.endsWith(".jsonl")) continue;
      const stat = directory.stat(name);
      if (stat?.kind !== "file" || stat.sizeBytes === 0) continue;
      if (act(stat)) return;
    }
  } finally {
    directory.close();
  }
}

function enter(claudeHome: string): Directory | undefined {
  let directory = Directory.open(claudeHome);
  for (const part of parts) {
    const next = directory?.enter(part);
    directory?.close();
    directory = next;
  }
  return directory;
}

/** Whether there is one to continue: the CLI ends where it is told to and there is none. */
export function hasConversation(
  instance: Pick<Instance, "home">,
  session: string,
): boolean {
  let found = false;
  try {
    eachConversation(
      instance,
      session,
      Date.now() + lookMs,
      () => found = true,
    );
  } catch (error) {
    if (!(error instanceof TooMany)) throw error;
  }
  return found;
}

/**
 * When something was last said in a session, in milliseconds since 1970; 0 where
 * nothing was. Throws TooMany.
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
