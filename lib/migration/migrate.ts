// Migrates the data of version 0.5 into the instance's volumes. The source stays
// unchanged; every file is verified against a manifest before ChromaDB opens its
// copy.

import { join } from "node:path";
import { startDaemon, waitForChromadb } from "../daemon/daemon.ts";
import { ensureHome } from "../instance/volumes.ts";
import {
  type MigrateOptions,
  type MigrationPlan,
  refuseOccupied,
} from "./migrate-plan.ts";
import {
  backUpSource,
  copySource,
  makeVolumes,
  readSource,
  vacateVolumes,
} from "./migrate-steps.ts";
import { checkCollections } from "./collections.ts";
import { volumeIds, writeMigrated } from "./migrated.ts";
import {
  endMove,
  freeStamp,
  type MoveOptions,
  runMove,
  withVolumes,
} from "./move.ts";
import type { Collections } from "./mover/collections.ts";
import type { Measured } from "./mover/reading.ts";
import { refuseWithoutRoom } from "./room.ts";
import { rememberSessions } from "./sessions.ts";

export interface Migrated {
  /** Null with --skip-backup. */
  backup: string | null;
  parts: Measured[];
  sessions: number;
  collections: Collections | null;
}

export interface MigrateRun extends MoveOptions {
  plan: MigrationPlan;
  options: MigrateOptions;
  env: NodeJS.ProcessEnv;
}

/** Migrates, or resumes an interrupted migration. */
export async function migrate(run: MigrateRun): Promise<Migrated> {
  const { instance, plan, options, env, track } = run;
  refuseWithoutRoom(plan.rooms);
  if (!options.force) refuseOccupied(instance, plan.occupied);
  ensureHome(instance);
  const { move, served } = await fillVolumes(run);
  const { journal } = move;
  let sessions = 0;
  await journal.step("sessions", () => {
    sessions = rememberSessions(instance, track.log);
  });
  await journal.step("start", async () => {
    track.begin("Starting the daemon");
    await startDaemon(instance, env, track.log);
    await waitForChromadb(instance);
  });
  const collections = await checkCollections(move, { served });
  const { skipBackup, stamp } = journal.state;
  const backup = skipBackup
    ? null
    : join(instance.home.backups, journal.state.backup ?? "");
  const volumes = await volumeIds(instance);
  writeMigrated(instance, { stamp, backup, volumes });
  endMove(move);
  const parts = plan.parts
    .filter(({ name }) => journal.state.parts.includes(name))
    .map(({ from: _, to: __, ...size }) => size);
  return { backup, parts, sessions, collections };
}

/** All steps before ChromaDB opens its copy. */
async function fillVolumes(run: MigrateRun) {
  const { instance, plan, options } = run;
  const stamp = freeStamp(instance, ["pre-dind", "pre-force"]);
  return await runMove(run, {
    kind: "migrate",
    stamp,
    parts: plan.parts.map(({ name }) => name),
    skipBackup: options.skipBackup,
    backup: `pre-dind-${stamp}`,
  }, async (move) => {
    const { journal } = move;
    const served = journal.isDone("start");
    await readSource(move);
    await backUpSource(move);
    await makeVolumes(move);
    if (!journal.isDone("verify")) {
      await withVolumes(move, async (mover) => {
        await vacateVolumes(move, mover, options);
        await copySource(move, mover);
      });
    }
    return { move, served };
  });
}
