// What migration and rollback share: a journal of steps, and a lock for one move at
// a time. A step first undoes what its interrupted run has left, so that it can be
// repeated.

import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Instance } from "../instance/instance.ts";
import {
  Journal,
  type JournalState,
  moveName,
  readJournalOf,
  stampOf,
} from "../instance/migration-journal.ts";
import { Failure } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { type Mover, withMover } from "./mover-container.ts";
import type { Progress } from "./mover/run.ts";

/** Reports the progress of a move. */
export interface Track {
  log: Log;
  /** Reports the start of a phase; returns a function that takes its progress. */
  begin(what: string): Progress;
}

/** Options of every move. */
export interface MoveOptions {
  instance: Instance;
  track: Track;
}

/** A move in progress. */
export interface Move extends MoveOptions {
  journal: Journal;
  /** A mover with only the home mounted, as volumes may not exist yet. */
  lock: Mover;
}

type Beginning =
  & Pick<JournalState, "kind" | "stamp" | "parts" | "backup">
  & Partial<JournalState>;

/** Starts a move, or resumes an interrupted one, while holding the lock. */
export async function runMove<T>(
  options: MoveOptions,
  beginning: Beginning,
  act: (move: Move) => Promise<T>,
): Promise<T> {
  const { instance } = options;
  return await withMover(instance, { volumes: false }, async (lock) => {
    // Read under the lock: another run may have just ended.
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

/** Runs `act` with a mover that has all existing volumes. */
export async function withVolumes<T>(
  { instance }: Pick<Move, "instance">,
  act: (mover: Mover) => Promise<T>,
): Promise<T> {
  return await withMover(instance, { volumes: true }, act);
}

/** Manifest of a move's source: a file in HAL9000_HOME/migration. */
export const manifestFile = {
  migrate: "manifest.json",
  rollback: "rollback.json",
} as const;

export function endMove(
  { instance: { home }, journal }: Pick<Move, "instance" | "journal">,
): void {
  for (const name of [manifestFile[journal.state.kind], "volumes.json"]) {
    rmSync(join(home.migration, name), { force: true });
  }
  journal.remove();
}

/** An interrupted move is resumed with its options; `other` is one that differs. */
export function refuseOtherOption(
  journal: Journal | undefined,
  other: string | undefined,
): void {
  if (!journal || other === undefined) return;
  const { kind } = journal.state;
  const startOver = kind === "migrate"
    ? ", or start over: hal9000-migrate --abort"
    : "";
  throw new Failure(
    "usage",
    `The interrupted ${moveName[kind]} was started without ${other}`,
    {
      hint: `Resume it without that option: hal9000-${kind}${startOver}`,
    },
  );
}

/** A timestamp that no backup of these kinds uses. */
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
