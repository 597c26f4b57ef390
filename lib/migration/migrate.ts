// From version 0.5: its data into the instance's volumes. The source stays as it is;
// every file is checked against a manifest before ChromaDB opens its copy.

import { startDaemon, waitForChromadb } from "../daemon/daemon.ts";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { ensureHome } from "../instance/volumes.ts";
import { refuseWithoutRoom } from "./checks.ts";
import type { Collections } from "./mover/collections.ts";
import { Journal, readJournalOf } from "../instance/migration-journal.ts";
import type { MigrateOptions, MigrationPlan } from "./migrate-plan.ts";
import { Migration } from "./migrate-steps.ts";
import { readMigrated, volumeIds, writeMigrated } from "./migrated.ts";
import { Mover } from "./mover-container.ts";
import type { Measured } from "./mover/operations.ts";
import { rememberSessions } from "./sessions.ts";
import { freeStamp, type Track } from "./steps.ts";

export interface Migrated {
  /** Null where none was wanted. */
  backup: string | null;
  parts: Measured[];
  sessions: number;
  collections: Collections | null;
}

/** Migrates, or goes on with a migration that has not ended. */
export async function migrate(
  instance: Instance,
  plan: MigrationPlan,
  options: MigrateOptions,
  env: NodeJS.ProcessEnv,
  track: Track,
  version: string,
): Promise<Migrated> {
  const { log } = track;
  refuseWithoutRoom(plan.rooms);
  if (plan.occupied.length > 0 && !options.force) {
    throw new Failure(
      "unsafe",
      `Volumes hold data already: ${plan.occupied.join(", ")}`,
      {
        hint: readMigrated(instance)
          ? "They were migrated before. Go back: rollback. Or again, with what " +
            "they hold moved into a backup: --force"
          : "--force moves that into a backup first.",
      },
    );
  }
  ensureHome(instance);
  const lock = await Mover.start(instance, { volumes: false });
  let journal: Journal;
  let move: Migration;
  let served: boolean;
  try {
    // Behind the lock: another run may have ended in the meantime, or been killed.
    journal = readJournalOf(instance, "migrate") ??
      newJournal(instance, plan, options);
    move = new Migration(instance, journal, plan, version, track);
    served = journal.isDone("start");
    await move.saveSource(lock);
    await move.prepareVolumes(options.force);
    await move.fillVolumes(lock);
  } finally {
    await lock.stop(instance);
  }
  let sessions = 0;
  await journal.step("sessions", () => {
    sessions = rememberSessions(instance, log);
  });
  await journal.step("start", async () => {
    track.begin("Starting the daemon");
    await startDaemon(instance, env, log);
    await waitForChromadb(instance);
  });
  const collections = await move.checkCollections(served);
  const backup = journal.state.skipBackup ? null : move.backupPath;
  const { stamp } = journal.state;
  const volumes = await volumeIds(instance);
  writeMigrated(instance, { stamp, backup, volumes });
  move.end();
  return {
    backup,
    parts: plan.parts
      .filter(({ name }) => journal.state.parts.includes(name))
      .map(({ name, entries, files, bytes }) => ({
        name,
        entries,
        files,
        bytes,
      })),
    sessions,
    collections,
  };
}

function newJournal(
  instance: Instance,
  plan: MigrationPlan,
  { skipBackup }: MigrateOptions,
): Journal {
  const stamp = freeStamp(instance, ["pre-dind", "pre-force"]);
  return new Journal(instance, {
    version: 1,
    kind: "migrate",
    stamp,
    parts: plan.parts.map(({ name }) => name),
    skipBackup,
    keepVolumes: false,
    backup: `pre-dind-${stamp}`,
    made: [],
    steps: {},
  });
}
