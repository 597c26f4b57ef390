// What a rollback would bring back, and whether that can be.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { Failure } from "../errors.ts";
import type { Instance } from "../instance.ts";
import { listWorkers } from "../workers.ts";
import { type Backup, wholeBackup } from "./backups.ts";
import {
  refuseGateway,
  refuseLinks,
  refuseOtherDisks,
  refuseUsers,
  refuseWithoutRoom,
  refuseWriters,
  roomFor,
} from "./checks.ts";
import { type Journal, readJournalOf } from "./journal.ts";
import { Mover } from "./mover.ts";
import { type Measured, measuredSchema } from "./operations.ts";
import { insideMover, movedParts, volumeOf } from "./parts.ts";
import { presentVolumes, type Track } from "./steps.ts";

export interface RollbackOptions {
  /** A path or name; today's data of the volumes where it is left out. */
  backup?: string | undefined;
  keepVolumes: boolean;
}

export interface RollbackPlan {
  /** What comes back, and from where. */
  parts: (Measured & { from: string })[];
  backup: Backup | null;
  /** Workers that are stopped for it. */
  workers: string[];
  /** Volumes that are removed in the end. */
  removed: string[];
  /** Local directories that are there, and are kept. */
  replaced: string[];
  resumes: boolean;
}

/** What would come back, and whether it can; changes nothing. */
export async function planRollback(
  instance: Instance,
  options: RollbackOptions,
  track: Track,
): Promise<RollbackPlan> {
  const { home } = instance;
  const journal = readJournalOf(instance, "rollback");
  refuseLinks(instance);
  await refuseGateway(instance);
  refuseOtherDisks(instance);
  refuseOtherOptions(journal, options);
  // Once it is copied it is no longer needed.
  const given = journal?.isDone("verify")
    ? undefined
    : journal
    ? journal.state.backup ?? undefined
    : options.backup;
  const keepVolumes = journal?.state.keepVolumes ?? options.keepVolumes;
  const backup = given === undefined
    ? null
    : await wholeBackup(instance, given, track);
  const volumes = await presentVolumes(instance);
  if (volumes.length === 0 && !backup && !journal) {
    throw new Failure("notFound", "There are no volumes to roll back from", {
      hint: "A backup can be restored: rollback --list-backups",
    });
  }
  const names = backup?.parts?.map(({ name }) => name) ??
    volumes.map(({ name }) => name);
  const replaced = names.map((name) => join(home.home, name))
    .filter((path) => existsSync(path));
  await refuseUsers(instance, replaced);
  refuseWriters([...replaced, home.memorybank]);
  const mover = await Mover.start(instance, { volumes: true, readOnly: true });
  let parts: Measured[];
  try {
    parts = await mover.do({
      op: "measure",
      parts: backup
        ? names.map((name) => ({
          name,
          path: insideMover.backup(backup.name, name),
        }))
        : volumes,
    }, measuredSchema);
  } finally {
    await mover.stop(instance);
  }
  const bytes = parts.reduce((sum, part) => sum + part.bytes, 0);
  const room = backup && !keepVolumes ? 2 * bytes : bytes;
  if (!journal) {
    refuseWithoutRoom(
      await roomFor(instance, { backupBytes: room, volumeBytes: 0 }),
    );
  }
  return {
    parts: parts.map((part) => {
      const moved = movedParts.find(({ name }) => name === part.name);
      const from = backup || !moved
        ? join(backup?.path ?? "", part.name)
        : volumeOf(instance, moved);
      return { ...part, from };
    }),
    backup,
    workers: (await listWorkers(instance)).map(({ name }) => name),
    removed: keepVolumes ? [] : movedParts
      .filter(({ name }) => volumes.some((volume) => volume.name === name))
      .map((part) => volumeOf(instance, part)),
    replaced,
    resumes: journal !== undefined,
  };
}

/** What was broken off goes on as it began. */
function refuseOtherOptions(
  journal: Journal | undefined,
  { backup, keepVolumes }: RollbackOptions,
): void {
  if (!journal) return;
  const { state } = journal;
  const same = state.backup !== null &&
    backup?.replace(/\/+$/, "").endsWith(state.backup);
  const other = backup !== undefined && !same
    ? "--backup"
    : keepVolumes && !state.keepVolumes
    ? "--keep-volumes"
    : undefined;
  if (other === undefined) return;
  throw new Failure(
    "usage",
    `The rollback that was broken off has no ${other}`,
    {
      hint: "Go on with it as it began: rollback",
    },
  );
}
