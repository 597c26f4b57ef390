// Rolls back to version 0.5: restores the current data of the volumes, or a backup,
// to the old directories. Replaced data is backed up, and volumes are removed last.

import { join } from "node:path";
import { ensureHome } from "../instance/volumes.ts";
import { hasManifest } from "./copy.ts";
import { forgetMigrated } from "./migrated.ts";
import {
  endMove,
  freeStamp,
  type Move,
  type MoveOptions,
  runMove,
  withVolumes,
} from "./move.ts";
import type { Measured } from "./mover/reading.ts";
import { sessionsPart } from "./parts.ts";
import type { RollbackOptions, RollbackPlan } from "./rollback-plan.ts";
import {
  chooseParts,
  keepManifest,
  readSource,
  replacedBackup,
  saveCurrent,
  stageParts,
  stopAll,
  swapParts,
} from "./rollback-steps.ts";
import { emptyVolumes, removeCopied } from "./rollback-volumes.ts";
import { forgetForms, returnSessions } from "./session-homes.ts";

export interface RolledBack {
  parts: Measured[];
  /** Sessions that were not used since the migration, and are as before it. */
  sessions: string[];
  /** The backup of what was replaced; null if nothing was. */
  kept: string | null;
  removed: string[];
}

export interface RollbackRun extends MoveOptions {
  plan: RollbackPlan;
  options: RollbackOptions;
}

/** Rolls back, or resumes an interrupted rollback. */
export async function rollback(run: RollbackRun): Promise<RolledBack> {
  const { instance, plan, options } = run;
  // Not when resuming: it would recreate a directory that is about to be replaced.
  if (!plan.resumes) ensureHome(instance);
  return await runMove(run, {
    kind: "rollback",
    stamp: freeStamp(instance, ["pre-rollback"]),
    parts: plan.parts.map(({ name }) => name),
    keepVolumes: options.keepVolumes,
    backup: plan.backup?.name ?? null,
    migrated: plan.migrated,
  }, async (move) => {
    const { journal } = move;
    await journal.step("stop", () => stopAll(move));
    const { full, sessions } = await withVolumes(move, async (mover) => {
      await chooseParts(move, mover, options);
      await readSource(move, mover);
      await saveCurrent(move, mover);
      await stageParts(move, mover);
      await swapParts(move, mover);
      const sessions = await returnAll(move);
      await keepManifest(move, mover);
      return { sessions, full: await emptyVolumes(move, mover) };
    });
    const removed = await removeCopied(move, full);
    const kept = replacedBackup(move);
    forgetMigrated(instance);
    endMove(move);
    return {
      parts: plan.parts
        .filter(({ name }) => journal.state.parts.includes(name))
        .map(({ from: _, ...size }) => size),
      sessions,
      kept: hasManifest(instance, kept)
        ? join(instance.home.backups, kept)
        : null,
      removed,
    };
  });
}

/**
 * Gives the sessions back, unless a backup that contains them was restored. Returns the
 * names of those that were not used since the migration.
 */
async function returnAll(move: Move): Promise<string[]> {
  const { journal } = move;
  let returned: string[] = [];
  await journal.step("sessions", async () => {
    if (journal.state.parts.includes(sessionsPart)) await forgetForms(move);
    else returned = await returnSessions(move, replacedBackup(move));
  });
  return returned;
}
