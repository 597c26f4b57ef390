// What a rollback would bring back, and whether that can be.

import { existsSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { refuseForeignInstance } from "../instance/ownership.ts";
import { listWorkers } from "../worker/workers.ts";
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
import {
  type Journal,
  readJournal,
  readJournalOf,
} from "../instance/migration-journal.ts";
import { migratedParts } from "./migrated.ts";
import { Mover } from "./mover-container.ts";
import { type Measured, measuredSchema } from "./mover/operations.ts";
import { insideMover, volumeOf } from "./parts.ts";
import { movedParts } from "../instance/volumes.ts";
import { presentVolumes, type Track } from "./steps.ts";

export interface RollbackOptions {
  /** A path or name; today's data of the volumes where it is left out. */
  backup?: string | undefined;
  keepVolumes: boolean;
  /** Directories that were never migrated give way to the volumes' data, too. */
  replaceLocal: boolean;
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
  /** Names of the parts that were migrated to the volumes. */
  migrated: string[];
  /** Local directories that stay: they were never migrated. */
  left: string[];
  resumes: boolean;
}

/** What would come back, and whether it can; changes nothing. */
export async function planRollback(
  instance: Instance,
  options: RollbackOptions,
  track: Track,
): Promise<RollbackPlan> {
  const { home } = instance;
  if (!existsSync(home.home)) {
    throw new Failure(
      "notFound",
      `Cannot roll back: there is no ${home.home}`,
      {
        hint: "Set HAL9000_HOME to the home that the data is to go to.",
      },
    );
  }
  const journal = readJournalOf(instance, "rollback");
  await refuseForeignInstance(instance, { all: true });
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
  const candidates = backup?.parts?.map(({ name }) => name) ??
    volumes.map(({ name }) => name);
  const present = (names: string[]) =>
    names.map((name) => join(home.home, name))
      .filter((path) => existsSync(path));
  await refuseUsers(instance, present(candidates));
  refuseWriters([...present(candidates), home.memorybank]);
  const migrated = await partsMigrated(instance);
  const mover = await Mover.start(instance, { volumes: true, readOnly: true });
  let names = candidates;
  let parts: Measured[];
  try {
    if (journal) names = journal.state.parts;
    else if (!backup) {
      names = await partsToBring(instance, mover, migrated, options);
    }
    parts = await mover.do({
      op: "measure",
      parts: backup
        ? names.map((name) => ({
          name,
          path: insideMover.backup(backup.name, name),
        }))
        : volumes.filter(({ name }) => names.includes(name)),
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
    replaced: present(names),
    migrated,
    left: present(candidates.filter((name) => !names.includes(name))),
    resumes: journal !== undefined,
  };
}

/** Names of the parts that were migrated to the volumes that there are. */
async function partsMigrated(instance: Instance): Promise<string[]> {
  const journal = readJournal(instance);
  // A migration that has come to its end but for the last look at ChromaDB.
  return journal?.state.kind === "migrate"
    ? journal.state.parts
    : journal?.state.migrated ?? await migratedParts(instance);
}

/**
 * Names of the volumes' parts that come back. A directory here that was never
 * migrated is itself the data: it stays where its volume holds none, and throws an
 * `unsafe` Failure where both hold data, unless it may be replaced.
 */
export async function partsToBring(
  instance: Instance,
  mover: Mover,
  migrated: string[],
  { replaceLocal }: Pick<RollbackOptions, "replaceLocal">,
): Promise<string[]> {
  const { home } = instance;
  const volumes = await presentVolumes(instance);
  const here = volumes.filter(({ name }) => !migrated.includes(name))
    .map(({ name }) => ({ name, path: insideMover.local(name) }));
  const schema = v.array(v.string());
  const unmoved = await mover.do({ op: "inUse", parts: here }, schema);
  const holding = await mover.do({ op: "inUse", parts: volumes }, schema);
  const both = unmoved.filter((name) => holding.includes(name));
  if (both.length > 0 && !replaceLocal) {
    const paths = both.map((name) => join(home.home, name)).join(", ");
    throw new Failure(
      "unsafe",
      `Never migrated, and the volumes hold other data: ${paths}`,
      {
        hint:
          "Migrate them: migrate --force keeps what the volumes hold as a " +
          "backup. Or replace them, and keep them as a backup: rollback " +
          "--replace-local",
      },
    );
  }
  return volumes.map(({ name }) => name)
    .filter((name) => !unmoved.includes(name) || holding.includes(name));
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
