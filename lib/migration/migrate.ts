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
import { type TakenSessions, takeSessions } from "./sessions.ts";
import { takeCredentials } from "./shared-config.ts";

export interface Migrated {
  /** Null with --skip-backup. */
  backup: string | null;
  parts: Measured[];
  sessions: number;
  /** Number of conversations that were copied to sessions. */
  conversations: number;
  /** What stays only in the shared Claude home, and why. */
  left: string[];
  /** Kinds of the credentials that were taken over. */
  credentials: string[];
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
  const { move, served, taken } = await fillVolumes(run);
  const { journal } = move;
  const { registered: sessions, conversations, left } = taken;
  await journal.step("start", async () => {
    track.begin("Starting the daemon");
    await startDaemon(instance, env, track.log);
    await waitForChromadb(instance);
  });
  const collections = await checkCollections(move, { served });
  const credentials = await takeCredentials(run);
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
  return {
    ...{ backup, parts, sessions, conversations, left, credentials },
    collections,
  };
}

/** All steps before ChromaDB opens its copy. */
async function fillVolumes(run: MigrateRun) {
  const { instance, plan, options, env } = run;
  const stamp = freeStamp(instance, ["pre-dind", "pre-force"]);
  return await runMove(run, {
    kind: "migrate",
    stamp,
    parts: plan.parts.map(({ name }) => name),
    skipBackup: options.skipBackup,
    inheritHooks: options.inheritHooks,
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
    let taken: TakenSessions = { registered: 0, conversations: 0, left: [] };
    await journal.step("sessions", async () => {
      taken = await takeSessions(move, env);
    });
    return { move, served, taken };
  });
}
