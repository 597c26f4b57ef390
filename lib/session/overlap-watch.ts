// Watches which files the sessions of a project change, and reports two that begin to change
// the same ones. Copies are read by containers, so only when their files may have changed.

import { setTimeout as sleep } from "node:timers/promises";
import type { Instance } from "../instance/instance.ts";
import { readSessions } from "../instance/session-record.ts";
import { messageOf } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import {
  type Changed,
  changedIn,
  comparable,
  type Overlap,
  overlapsOf,
} from "../workspace/overlap.ts";

/** How often it looks for sessions whose files may have changed. */
const pollMs = 5000;

/** How often the copy of a session that works is read, besides the end of its work. */
const againMs = 60_000;

interface Look {
  at: number;
  working: boolean;
  /** Why the copy could not be read. */
  fault?: string;
}

/**
 * Calls `act` for the overlaps that there are, and for each that begins, until `stop` is
 * aborted. `works` tells whether the Claude of a session works.
 */
export async function followOverlaps(
  instance: Instance,
  { stop, log, works, everyMs = pollMs, read = changedIn }: {
    stop: AbortSignal;
    log: Log;
    works: (session: string) => boolean;
    everyMs?: number;
    read?: typeof changedIn;
  },
  act: (overlap: Overlap, begins: boolean) => void,
): Promise<void> {
  const looks = new Map<string, Look>();
  const changed = new Map<string, Changed>();
  let before: Set<string> | undefined;
  while (!stop.aborted) {
    const records = readSessions(instance);
    const compared = comparable(records);
    for (const name of looks.keys()) {
      if (compared.some(({ record }) => record.name === name)) continue;
      looks.delete(name);
      changed.delete(name);
    }
    for (const one of compared) {
      const { name } = one.record;
      const last = looks.get(name);
      const working = [name, ...one.beside].some(works);
      if (stop.aborted || last && !isDue(last, working, Date.now())) continue;
      const look: Look = { at: Date.now(), working };
      try {
        changed.set(name, await read(instance, one, log));
      } catch (error) {
        changed.delete(name);
        look.fault = messageOf(error);
        if (look.fault !== last?.fault) log(`warning: ${look.fault}`);
      }
      looks.set(name, look);
    }
    const overlaps = overlapsOf(records, changed)
      .filter(({ sameDirectory }) => !sameDirectory);
    const now = new Set<string>();
    for (const overlap of overlaps) {
      const pair = overlap.sessions.join(" ");
      now.add(pair);
      if (!before?.has(pair)) act(overlap, before !== undefined);
    }
    before = now;
    await sleep(everyMs, undefined, { signal: stop }).catch(() => {});
  }
}

/** Also once after its work has ended. */
function isDue(last: Look, working: boolean, nowMs: number): boolean {
  if (working !== last.working) return true;
  return working && nowMs - last.at > againMs;
}
