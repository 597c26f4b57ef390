// Plans a migration and checks that it is possible.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { type Journal, readJournalOf } from "../instance/migration-journal.ts";
import type { Log } from "../std/log.ts";
import { refuseOthers, refuseWorkers } from "./checks.ts";
import {
  type Assigned,
  assignShared,
  hasSharedConfig,
  nameOf,
} from "./conversations.ts";
import { readMigrated } from "./migrated.ts";
import { refuseOtherOption } from "./move.ts";
import { type Mover, withMover } from "./mover-container.ts";
import type { Measured } from "./mover/reading.ts";
import { insideMover } from "./mover/places.ts";
import { backupParts, movedNames, presentVolumes, volumeOf } from "./parts.ts";
import { type Room, roomFor } from "./room.ts";
import { findSessions, projectsOf } from "./sessions.ts";

export interface MigrateOptions {
  skipBackup: boolean;
  /** Move existing data of the volumes into a backup first. */
  force: boolean;
  /** Sessions inherit what runs programs, too. */
  inheritHooks: boolean;
}

export interface MigrationPlan {
  parts: (Measured & { from: string; to: string })[];
  sessions: string[];
  /** In the Claude home that all sessions shared; null if there is none. */
  conversations: {
    count: number;
    /** Those of an unknown project. */
    unassigned: string[];
  } | null;
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
  const journal = readJournalOf(instance, "migrate");
  const directories = movedNames.map((name) => join(home.home, name))
    .filter((path) => existsSync(path));
  const sessions = findSessions(instance, log);
  const isShared = hasSharedConfig(instance);
  if (directories.length + sessions.length === 0 && !isShared && !journal) {
    throw new Failure("notFound", `No data of version 0.5 in ${home.home}`, {
      hint: "It is expected in the directories claude, chromadb, membank and " +
        "plugins. To restore a backup, see: hal9000-rollback --list-backups",
    });
  }
  await refuseOthers(instance, [
    ...directories,
    ...(isShared ? [home.claude] : []),
  ]);
  refuseOtherOption(journal, otherOption(journal, options));
  if (!journal?.hasBegun("start")) await refuseWorkers(instance);
  const reading = { volumes: true, readOnly: true };
  const source = { at: insideMover.home, parts: backupParts };
  const { measured, occupied, assigned } = await withMover(
    instance,
    reading,
    async (mover) => ({
      measured: await mover.do("measure", source),
      occupied: await occupiedVolumes(instance, mover),
      assigned: isShared
        ? await assignShared(instance, mover, projectsOf(instance, sessions))
        : null,
    }),
  );
  const parts = measured.map((part) => {
    const { name } = part;
    const to = volumeOf(instance, name);
    return { ...part, from: join(home.home, name), to: to ?? "stays" };
  });
  const bytes = (parts: Measured[]) =>
    parts.reduce((sum, { bytes }) => sum + bytes, 0);
  const hasBackup = options.skipBackup || journal?.isDone("backup");
  const moved = parts.filter(({ to }) => to !== "stays");
  const staying = parts.filter(({ to }) => to === "stays");
  return {
    parts,
    sessions: sessions.map(({ name }) => name),
    conversations: assigned && describe(assigned),
    // Without data to move, their data stays.
    occupied: journal?.isDone("save") || moved.length === 0 ? [] : occupied,
    rooms: await roomFor(instance, {
      // Sessions get copies of their conversations.
      home: (hasBackup ? 0 : bytes(parts)) + (isShared ? bytes(staying) : 0),
      volumes: bytes(moved),
    }),
    resumes: journal !== undefined,
  };
}

function describe(
  { assigned }: { assigned: Assigned[] },
): MigrationPlan["conversations"] {
  return {
    count: assigned.length,
    unassigned: assigned.filter(({ sessions }) => sessions.length === 0)
      .map(({ conversation }) => nameOf(conversation)),
  };
}

/** An option that differs from those of the interrupted migration. */
function otherOption(
  journal: Journal | undefined,
  { skipBackup, inheritHooks }: MigrateOptions,
): string | undefined {
  const { state } = journal ?? {};
  if (skipBackup && !state?.skipBackup) return "--skip-backup";
  return inheritHooks && !state?.inheritHooks ? "--inherit-hooks" : undefined;
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
      ? "They were migrated before. Undo that: hal9000-rollback. Or migrate again, " +
        "and move their data into a backup: --force"
      : "Pass --force to move it into a backup first.",
  });
}
