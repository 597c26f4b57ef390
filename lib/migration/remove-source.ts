// Removes the directories of version 0.5 that a migration has made superfluous.

import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { readJournalOf } from "../instance/migration-journal.ts";
import { movedParts } from "../instance/volumes.ts";
import { refuseUsers, refuseWriters } from "./checks.ts";
import { verify } from "./copy.ts";
import { readMigrated } from "./migrated.ts";
import type { MoveOptions } from "./move.ts";
import { withMover } from "./mover-container.ts";
import { insideMover, placesOf } from "./parts.ts";

/** The directories that can be removed; throws a Failure where there are none. */
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
  { instance, track }: Pick<MoveOptions, "instance" | "track">,
): Promise<void> {
  const backup = basename(readMigrated(instance)?.backup ?? "");
  const place = (...names: string[]) => insideMover.backup(backup, ...names);
  const manifest = place("manifest.json");
  await withMover(instance, { volumes: false }, async (mover) => {
    const present = movedParts.map(({ name }) => ({ name }))
      .filter(({ name }) => existsSync(join(instance.home.home, name)));
    const parts = placesOf(present, place);
    await verify({ track }, mover, { what: "the backup", parts, manifest });
    const { count, first } = await mover.do("compare", {
      parts: placesOf(present, insideMover.local),
      manifest,
      contents: true,
    });
    if (count > 0) {
      throw new Failure(
        "unsafe",
        `The source has changed since the migration: ${first.join("; ")}`,
        {
          hint: "What is new in it was not migrated. Keep it elsewhere first.",
        },
      );
    }
    for (const { name, path } of placesOf(present, insideMover.local)) {
      // Out of the way whole: one that is half removed would be a changed one.
      const away = insideMover.work(`removed-${name}`);
      await mover.do("remove", { path: away });
      await mover.do("rename", { from: path, to: away });
      await mover.do("remove", { path: away });
    }
  });
}
