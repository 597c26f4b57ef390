// Back to version 0.5: today's data of the volumes, or that of a backup, into the
// directories that it had. What is replaced is kept, and volumes go last.

import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Instance } from "../instance/instance.ts";
import { ensureHome } from "../instance/volumes.ts";
import { Journal, readJournalOf } from "../instance/migration-journal.ts";
import { Mover } from "./mover-container.ts";
import type { Measured } from "./mover/operations.ts";
import type { RollbackOptions, RollbackPlan } from "./rollback-plan.ts";
import { Rollback } from "./rollback-steps.ts";
import { freeStamp, type Track } from "./steps.ts";

export interface RolledBack {
  parts: Measured[];
  /** Where what was replaced is kept; null where there was nothing. */
  kept: string | null;
  removed: string[];
}

/** Rolls back, or goes on with a rollback that has not ended. */
export async function rollback(
  instance: Instance,
  plan: RollbackPlan,
  options: RollbackOptions,
  track: Track,
  version: string,
): Promise<RolledBack> {
  // It would make a directory anew that is about to be put in its place.
  if (!plan.resumes) ensureHome(instance);
  const lock = await Mover.start(instance, { volumes: false });
  try {
    // Behind the lock: another run may have ended in the meantime, or been killed.
    const journal = readJournalOf(instance, "rollback") ??
      newJournal(instance, plan, options);
    const move = new Rollback(instance, journal, version, track);
    return await runSteps(instance, plan, journal, move, options);
  } finally {
    await lock.stop(instance);
  }
}

function newJournal(
  instance: Instance,
  plan: RollbackPlan,
  { keepVolumes }: RollbackOptions,
): Journal {
  return new Journal(instance, {
    version: 1,
    kind: "rollback",
    stamp: freeStamp(instance, ["pre-rollback"]),
    parts: plan.parts.map(({ name }) => name),
    skipBackup: false,
    keepVolumes,
    backup: plan.backup?.name ?? null,
    migrated: plan.migrated,
    made: [],
    steps: {},
  });
}

async function runSteps(
  instance: Instance,
  plan: RollbackPlan,
  journal: Journal,
  move: Rollback,
  options: RollbackOptions,
): Promise<RolledBack> {
  await journal.step("stop", () => move.stopAll());
  const mover = await Mover.start(instance, { volumes: true });
  let full: string[] = [];
  try {
    await move.chooseParts(mover, options);
    await move.stage(mover);
    await move.swap(mover);
    await move.keepManifest(mover);
    if (!journal.state.keepVolumes) full = await move.emptyVolumes(mover);
  } finally {
    await mover.stop(instance);
  }
  const removed = await move.removeVolumes(full);
  const kept = existsSync(join(move.keptPath, "manifest.json"));
  move.end();
  return {
    parts: plan.parts.filter(({ name }) => journal.state.parts.includes(name))
      .map(({ name, entries, files, bytes }) => ({
        name,
        entries,
        files,
        bytes,
      })),
    kept: kept ? move.keptPath : null,
    removed,
  };
}
