// Takes a migration back that has not ended, and removes what one has left that has.

import { existsSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { refuseUsers, refuseWriters } from "./checks.ts";
import { type Journal, readJournalOf } from "../instance/migration-journal.ts";
import { readMigrated } from "./migrated.ts";
import { Mover } from "./mover-container.ts";
import { comparisonSchema } from "./mover/operations.ts";
import { insideMover, volumeOf } from "./parts.ts";
import { movedParts } from "../instance/volumes.ts";
import { presentVolumes, type Track, verify } from "./steps.ts";

/** The journal of one that can be taken back; throws a Failure where there is none. */
export function abortable(instance: Instance): Journal {
  const journal = readJournalOf(instance, "migrate");
  if (!journal) {
    throw new Failure("notFound", "No migration has been broken off");
  }
  if (!journal.hasBegun("start")) return journal;
  throw new Failure("unsafe", "The daemon runs on the new data already", {
    hint: "Go on with it: migrate. Or go back behind it: rollback.",
  });
}

/** As it was before the migration began; its source was never touched. */
export async function abortMigration(
  instance: Instance,
  track: Track,
): Promise<void> {
  const lock = await Mover.start(instance, { volumes: false });
  try {
    await takeBack(instance, abortable(instance), track);
  } finally {
    await lock.stop(instance);
  }
}

async function takeBack(
  instance: Instance,
  journal: Journal,
  track: Track,
): Promise<void> {
  const { home, docker } = instance;
  const { stamp, made } = journal.state;
  const former = `pre-force-${stamp}`;
  const hadData = existsSync(join(home.backups, former, "manifest.json"));
  const emptied = journal.hasBegun("empty") && hadData;
  const filled = Object.keys(journal.state.steps)
    .some((step) => step.startsWith("copy:"));
  const mover = await Mover.start(instance, { volumes: true });
  try {
    for (const { name, path } of await presentVolumes(instance)) {
      if (!filled && !emptied) continue;
      await mover.act({ op: "empty", path });
      const from = insideMover.backup(former, name);
      if (!hadData || !existsSync(join(home.backups, former, name))) continue;
      const progress = track.begin(`Putting back volume ${name}`);
      await mover.act({ op: "copy", from, to: path }, progress);
      await verify(mover, {
        what: "the volumes",
        parts: [{ name, path }],
        manifest: insideMover.backup(former, "manifest.json"),
      }, track.begin(`Checking volume ${name}`));
    }
    const backup = journal.state.backup ?? "";
    if (
      backup !== "" && !existsSync(join(home.backups, backup, "manifest.json"))
    ) {
      await mover.act({ op: "remove", path: insideMover.backup(backup) });
    }
  } finally {
    await mover.stop(instance);
  }
  for (const part of movedParts) {
    const volume = volumeOf(instance, part);
    if (made.includes(volume)) await docker.getVolume(volume).remove();
  }
  rmSync(join(home.migration, "manifest.json"), { force: true });
  journal.remove();
}

/** Directories of version 0.5 that a migration has made superfluous. */
export async function planRemoval(instance: Instance): Promise<string[]> {
  const { home } = instance;
  const migrated = readMigrated(instance);
  if (!migrated || readJournalOf(instance, "migrate")) {
    throw new Failure("notFound", "There is no migration that has ended", {
      hint: "Its source is all there is: migrate first.",
    });
  }
  if (migrated.backup === null) {
    throw new Failure("unsafe", "That migration made no backup", {
      hint: "Remove the directories by hand, if you are sure.",
    });
  }
  const directories = movedParts.map(({ name }) => join(home.home, name))
    .filter((path) => existsSync(path));
  if (directories.length === 0) {
    throw new Failure("notFound", "The source has been removed already");
  }
  await refuseUsers(instance, directories);
  refuseWriters(directories);
  return directories;
}

/** Removes them once the backup is found to be whole, and nothing newer than it. */
export async function removeSource(
  instance: Instance,
  track: Track,
): Promise<void> {
  const { home } = instance;
  const backup = basename(readMigrated(instance)?.backup ?? "");
  const manifest = insideMover.backup(backup, "manifest.json");
  const mover = await Mover.start(instance, { volumes: false });
  try {
    const present = movedParts.map(({ name }) => name)
      .filter((name) => existsSync(join(home.home, name)));
    await verify(mover, {
      what: "the backup",
      parts: present.map((name) => ({
        name,
        path: insideMover.backup(backup, name),
      })),
      manifest,
    }, track.begin("Checking the backup"));
    const { count, first } = await mover.do({
      op: "compare",
      parts: present.map((name) => ({ name, path: insideMover.local(name) })),
      manifest,
      contents: true,
    }, comparisonSchema);
    if (count > 0) {
      throw new Failure(
        "unsafe",
        `The source has changed since the migration: ${first.join("; ")}`,
        {
          hint: "What is new in it was not migrated. Keep it elsewhere first.",
        },
      );
    }
    for (const name of present) {
      // Out of the way whole: one that is half removed would be a changed one.
      const away = insideMover.work(`removed-${name}`);
      await mover.act({ op: "remove", path: away });
      await mover.act({
        op: "rename",
        from: insideMover.local(name),
        to: away,
      });
      await mover.act({ op: "remove", path: away });
    }
  } finally {
    await mover.stop(instance);
  }
}
