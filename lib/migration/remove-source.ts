// Removes the directories of version 0.5 after a migration.

import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { readJournalOf } from "../instance/migration-journal.ts";
import { refuseUsers, refuseWriters } from "./checks.ts";
import { verify } from "./copy.ts";
import { readMigrated } from "./migrated.ts";
import type { MoveOptions } from "./move.ts";
import { withMover } from "./mover-container.ts";
import { insideMover } from "./mover/places.ts";
import { movedNames } from "./parts.ts";

/** The directories that can be removed; throws a Failure if there are none. */
export async function planRemoval(instance: Instance): Promise<string[]> {
  const { home } = instance;
  const migrated = readMigrated(instance);
  if (!migrated || readJournalOf(instance, "migrate")) {
    throw new Failure("notFound", "No finished migration found", {
      hint: "Migrate first: the source is the only copy.",
    });
  }
  if (migrated.backup === null) {
    throw new Failure("unsafe", "The migration was run without a backup", {
      hint: "Remove the directories by hand, if you are sure.",
    });
  }
  const directories = movedNames.map((name) => join(home.home, name))
    .filter((path) => existsSync(path));
  if (directories.length === 0) {
    throw new Failure("notFound", "There are no directories to remove", {
      hint: "Sessions of version 0.5 stay in claude.",
    });
  }
  await refuseUsers(instance, directories);
  refuseWriters(directories);
  return directories;
}

/** Removes the directories if the backup is complete, and they have not changed. */
export async function removeSource(
  { instance, track }: Pick<MoveOptions, "instance" | "track">,
): Promise<void> {
  const backup = basename(readMigrated(instance)?.backup ?? "");
  const at = insideMover.backup(backup);
  const manifest = `${at}/manifest.json`;
  await withMover(instance, { volumes: false }, async (mover) => {
    const parts = movedNames.filter((name) =>
      existsSync(join(instance.home.home, name))
    );
    await verify({ track }, mover, { what: "the backup", at, parts, manifest });
    const { count, first } = await mover.do("compare", {
      at: insideMover.home,
      parts,
      manifest,
      contents: true,
    });
    if (count > 0) {
      throw new Failure(
        "unsafe",
        `The source has changed since the migration: ${first.join("; ")}`,
        {
          hint: "The changes were not migrated. Save them elsewhere first.",
        },
      );
    }
    for (const name of parts) {
      // Rename first: after an interruption, a half-removed directory would count
      // as changed.
      const away = `${insideMover.work}/removed-${name}`;
      await mover.do("remove", { path: away });
      const from = `${insideMover.home}/${name}`;
      await mover.do("rename", { from, to: away });
      await mover.do("remove", { path: away });
    }
  });
}
