// What a migration and a rollback are both: steps in a journal, one move at a time. Each
// begins by undoing what a broken-off run of itself has left, so that it can be run again.

import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Instance } from "../instance/instance.ts";
import {
  Journal,
  type JournalState,
  readJournalOf,
  stampOf,
} from "../instance/migration-journal.ts";
import { Failure } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { type Mover, withMover } from "./mover-container.ts";
import type { Progress } from "./mover/run.ts";

/** How people hear of a move. */
export interface Track {
  log: Log;
  /** Reports that something begins; what it returns takes its progress. */
  begin(what: string): Progress;
}

/** What a move is run with. */
export interface MoveOptions {
  instance: Instance;
  track: Track;
}

/** A move that is under way. */
export interface Move extends MoveOptions {
  journal: Journal;
  /** Has the home alone: volumes may have yet to be made. */
  lock: Mover;
}

type Beginning =
  & Pick<JournalState, "kind" | "stamp" | "parts" | "backup">
  & Partial<JournalState>;

/** Begins a move, or goes on with one that has not ended, behind the lock. */
export async function runMove<T>(
  options: MoveOptions,
  beginning: Beginning,
  act: (move: Move) => Promise<T>,
): Promise<T> {
  const { instance } = options;
  return await withMover(instance, { volumes: false }, async (lock) => {
    // Another run may have ended in the meantime, or been killed.
    const journal = readJournalOf(instance, beginning.kind) ??
      new Journal(instance, {
        version: 1,
        skipBackup: false,
        keepVolumes: false,
        made: [],
        steps: {},
        ...beginning,
      });
    return await act({ ...options, journal, lock });
  });
}

/** With all volumes that there are by now. */
export async function withVolumes<T>(
  { instance }: Pick<Move, "instance">,
  act: (mover: Mover) => Promise<T>,
): Promise<T> {
  return await withMover(instance, { volumes: true }, act);
}

/** The manifest of a move's source: a file of HAL9000_HOME/migration. */
export const workFile = {
  migrate: "manifest.json",
  rollback: "rollback.json",
} as const;

export function endMove(
  { instance: { home }, journal }: Pick<Move, "instance" | "journal">,
): void {
  for (const name of [workFile[journal.state.kind], "volumes.json"]) {
    rmSync(join(home.migration, name), { force: true });
  }
  journal.remove();
}

/** What was broken off goes on as it began; `other` is an option that differs. */
export function refuseOtherOption(
  journal: Journal | undefined,
  other: string | undefined,
): void {
  if (!journal || other === undefined) return;
  const { kind } = journal.state;
  const anew = kind === "migrate" ? ", or begin anew: migrate --abort" : "";
  throw new Failure(
    "usage",
    `The ${kind} that was broken off began without ${other}`,
    {
      hint: `Go on with it as it began: ${kind}${anew}`,
    },
  );
}

/** A stamp of now that no backup of these kinds has. */
export function freeStamp(
  { home }: Pick<Instance, "home">,
  kinds: string[],
): string {
  const now = stampOf(new Date());
  for (let count = 1;; count++) {
    const stamp = count === 1 ? now : `${now}-${count}`;
    const taken = kinds.some((kind) =>
      existsSync(join(home.backups, `${kind}-${stamp}`))
    );
    if (!taken) return stamp;
  }
}
