// Plans a rollback and checks that it is possible.

import { existsSync, lstatSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { type Journal, readJournalOf } from "../instance/migration-journal.ts";
import { listWorkers } from "../worker/workers.ts";
import {
  type Backup,
  isRestorable,
  listBackups,
  verifiedBackup,
} from "./backups.ts";
import { refuseOthers } from "./checks.ts";
import { hasSharedConfig } from "./conversations.ts";
import { refuseOtherOption, type Track } from "./move.ts";
import { withMover } from "./mover-container.ts";
import type { Measured } from "./mover/reading.ts";
import { insideMover } from "./mover/places.ts";
import { backupParts, movedNames, presentVolumes, volumeOf } from "./parts.ts";
import { partsMigrated, partsToRestore } from "./rollback-parts.ts";
import { refuseWithoutRoom, roomFor } from "./room.ts";

export interface RollbackOptions {
  /**
   * Path or name of a backup.
   * @default the current data of the volumes
   */
  backup?: string | undefined;
  keepVolumes: boolean;
  /** Also replace directories that were never migrated. */
  replaceLocal: boolean;
}

export interface RollbackPlan {
  /** What is restored, and from where. */
  parts: (Measured & { from: string })[];
  backup: Backup | null;
  /** Workers that will be stopped. */
  workers: string[];
  /** Volumes that will be removed. */
  removed: string[];
  /** Local directories that are replaced and backed up. */
  replaced: string[];
  /** Names of the parts that were migrated to the volumes. */
  migrated: string[];
  /** Local directories that stay, as they were never migrated. */
  left: string[];
  resumes: boolean;
}

/** Plans a rollback and checks that it is possible; changes nothing. */
export async function planRollback(
  instance: Instance,
  options: RollbackOptions,
  track: Track,
): Promise<RollbackPlan> {
  const journal = readJournalOf(instance, "rollback");
  await refuseRollback(instance, journal, options);
  const volumes = await presentVolumes(instance);
  const given = journal
    ? journal.state.backup
    : options.backup ?? onlyBackup(instance, volumes);
  // After the copy is verified, the backup is no longer needed.
  const backup = given === null || journal?.isDone("verify")
    ? null
    : await verifiedBackup(instance, given, track);
  if (volumes.length === 0 && !backup && !journal) {
    throw new Failure("notFound", "No volumes to roll back from", {
      hint: "To restore a backup, see: hal9000-rollback --list-backups",
    });
  }
  const candidates = (backup?.parts ?? volumes).map(({ name }) => name)
    .filter((name) => backupParts.includes(name));
  const migrated = await partsMigrated(instance);
  const keepVolumes = journal?.state.keepVolumes ?? options.keepVolumes;
  const reading = { volumes: true, readOnly: true };
  const parts = await withMover(instance, reading, async (mover) => {
    const names = journal?.state.parts ??
      (backup
        ? candidates
        : await partsToRestore(instance, mover, migrated, options));
    const at = backup ? insideMover.backup(backup.name) : insideMover.volumes;
    return await mover.do("measure", { at, parts: names });
  });
  const bytes = parts.reduce((sum, part) => sum + part.bytes, 0);
  if (!journal) {
    const copies = backup && !keepVolumes ? 2 : 1;
    const room = { home: copies * bytes, volumes: 0 };
    refuseWithoutRoom(await roomFor(instance, room));
  }
  const names = journal?.state.parts ?? parts.map(({ name }) => name);
  const present = (names: string[]) => presentHere(instance, names);
  return {
    parts: parts.map((part) => ({
      ...part,
      from: (backup ? undefined : volumeOf(instance, part.name)) ??
        join(backup?.path ?? "", part.name),
    })),
    backup,
    workers: (await listWorkers(instance)).map(({ name }) => name),
    removed: keepVolumes ? [] : volumes.map(({ volume }) => volume),
    replaced: present(names),
    migrated,
    left: present(candidates.filter((name) => !names.includes(name))),
    resumes: journal !== undefined,
  };
}

/** The newest complete backup of a home that has no other data; null if there is none. */
function onlyBackup(
  { home }: Pick<Instance, "home">,
  volumes: unknown[],
): string | null {
  const isEmpty = volumes.length === 0 && backupParts.every((name) => {
    const path = join(home.home, name);
    return !existsSync(path) || readdirSync(path).length === 0;
  });
  if (!isEmpty) return null;
  return listBackups({ home }).find(isRestorable)?.name ?? null;
}

function presentHere({ home }: Pick<Instance, "home">, names: string[]) {
  return names.map((name) => join(home.home, name))
    .filter((path) => existsSync(path));
}

async function refuseRollback(
  instance: Instance,
  journal: Journal | undefined,
  options: RollbackOptions,
): Promise<void> {
  const { home } = instance;
  if (!existsSync(home.home)) {
    const message = `Cannot roll back: ${home.home} does not exist`;
    const hint = "Set HAL9000_HOME to the home to restore the data to.";
    throw new Failure("notFound", message, { hint });
  }
  refuseOtherOption(journal, otherOption(journal, options));
  refuseOtherDisks(instance);
  const restores = (journal ? journal.state.backup : options.backup) != null;
  const parts = restores ? backupParts : movedNames;
  const directories = presentHere(instance, parts);
  await refuseOthers(instance, [
    ...directories,
    ...(hasSharedConfig(instance) ? [home.claude] : []),
    home.memorybank,
  ]);
}

/** Throws an `unsafe` Failure if a rename cannot move directories into place. */
function refuseOtherDisks({ home }: Pick<Instance, "home">): void {
  const device = lstatSync(home.home).dev;
  for (const path of [home.backups, home.migration]) {
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (!stat || stat.dev === device) continue;
    throw new Failure(
      "unsafe",
      `"${path}" is on another file system than the home`,
      {
        hint: "Unmount it, or move it to where the home is.",
      },
    );
  }
}

/** An option that differs from those of the interrupted rollback. */
function otherOption(
  journal: Journal | undefined,
  { backup, keepVolumes }: RollbackOptions,
): string | undefined {
  if (!journal) return undefined;
  const { state } = journal;
  const isSame = state.backup !== null &&
    backup?.replace(/\/+$/, "").endsWith(state.backup);
  if (backup !== undefined && !isSame) return `--backup ${backup}`;
  return keepVolumes && !state.keepVolumes ? "--keep-volumes" : undefined;
}
