// Plans a migration and checks that it is possible.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { readJournalOf } from "../instance/migration-journal.ts";
import type { Log } from "../std/log.ts";
import { refuseOthers, refuseWorkers } from "./checks.ts";
import { readMigrated } from "./migrated.ts";
import { refuseOtherOption } from "./move.ts";
import { type Mover, withMover } from "./mover-container.ts";
import type { Measured } from "./mover/reading.ts";
import { insideMover } from "./mover/places.ts";
import { backupParts, movedNames, presentVolumes, volumeOf } from "./parts.ts";
import { type Room, roomFor } from "./room.ts";
import { findSessions } from "./sessions.ts";

export interface MigrateOptions {
  skipBackup: boolean;
  /** Move existing data of the volumes into a backup first. */
  force: boolean;
}

export interface MigrationPlan {
  parts: (Measured & { from: string; to: string })[];
  sessions: string[];
  /** Volumes that contain data. */
  occupied: string[];
  rooms: Room[];
  /** Whether it resumes an interrupted run. */
  resumes: boolean;
}

/** Plans a migration and checks that it is possible; changes nothing. */
export async function planMigration(
  instance: Instance,
  options: MigrateOptions,
  log: Log,
): Promise<MigrationPlan> {
  const { home } = instance;
  const directories = movedNames.map((name) => join(home.home, name))
    .filter((path) => existsSync(path));
  const journal = readJournalOf(instance, "migrate");
  if (directories.length === 0 && !journal) {
    throw new Failure("notFound", `No data of version 0.5 in ${home.home}`, {
      hint: "It is expected in the directories chromadb, membank and plugins.",
    });
  }
  await refuseOthers(instance, directories);
  const skips = options.skipBackup && !journal?.state.skipBackup;
  refuseOtherOption(journal, skips ? "--skip-backup" : undefined);
  if (!journal?.hasBegun("start")) await refuseWorkers(instance);
  const reading = { volumes: true, readOnly: true };
  const source = { at: insideMover.home, parts: backupParts };
  const [measured, occupied] = await withMover(
    instance,
    reading,
    async (mover) => [
      await mover.do("measure", source),
      await occupiedVolumes(instance, mover),
    ],
  );
  const parts = measured.map((part) => {
    const { name } = part;
    const to = volumeOf(instance, name);
    return { ...part, from: join(home.home, name), to: to ?? "stays" };
  });
  const bytes = (parts: Measured[]) =>
    parts.reduce((sum, { bytes }) => sum + bytes, 0);
  const hasBackup = options.skipBackup || journal?.isDone("backup");
  return {
    parts,
    sessions: findSessions(instance, log).map(({ name }) => name),
    occupied: journal?.isDone("save") ? [] : occupied,
    rooms: await roomFor(instance, {
      home: hasBackup ? 0 : bytes(parts),
      volumes: bytes(parts.filter(({ to }) => to !== "stays")),
    }),
    resumes: journal !== undefined,
  };
}

/** Names of the volumes that contain data. */
export async function occupiedVolumes(
  instance: Pick<Instance, "docker" | "names">,
  mover: Mover,
): Promise<string[]> {
  const present = await presentVolumes(instance);
  const parts = present.map(({ name }) => name);
  const names = await mover.do("withData", { at: insideMover.volumes, parts });
  return present.filter(({ name }) => names.includes(name))
    .map(({ volume }) => volume);
}

/** Throws an `unsafe` Failure if volumes contain data. */
export function refuseOccupied(
  instance: Pick<Instance, "home">,
  occupied: string[],
): void {
  if (occupied.length === 0) return;
  const message = `Volumes already contain data: ${occupied.join(", ")}`;
  throw new Failure("unsafe", message, {
    hint: readMigrated(instance)
      ? "They were migrated before. Undo that: rollback. Or migrate again, " +
        "and move their data into a backup: --force"
      : "Pass --force to move it into a backup first.",
  });
}
