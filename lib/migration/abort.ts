// Undoes an unfinished migration: restores the state before it began. Its source
// was never changed.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { type Journal, readJournalOf } from "../instance/migration-journal.ts";
import { copyParts, hasManifest } from "./copy.ts";
import { forcedBackup } from "./migrate-steps.ts";
import { endMove, type MoveOptions, withVolumes } from "./move.ts";
import { type Mover, withMover } from "./mover-container.ts";
import { insideMover } from "./mover/places.ts";
import { presentVolumes, removeVolumes } from "./parts.ts";
import { returnSessions } from "./session-homes.ts";

/** The journal of a migration that can be undone; throws a Failure if there is none. */
export function abortable(
  instance: Pick<Instance, "home" | "owner">,
): Journal {
  const journal = readJournalOf(instance, "migrate");
  if (!journal) {
    throw new Failure("notFound", "There is no interrupted migration", {
      hint: "See what would be migrated: hal9000-migrate --dry-run",
    });
  }
  if (!journal.hasBegun("start")) return journal;
  throw new Failure("unsafe", "The daemon already runs on the new data", {
    hint: "Resume it: hal9000-migrate. Or undo it: hal9000-rollback",
  });
}

type Aborting = Pick<MoveOptions, "instance" | "track">;

export async function abortMigration(options: Aborting): Promise<void> {
  const { instance } = options;
  await withMover(instance, { volumes: false }, async (lock) => {
    const journal = abortable(instance);
    const { backup, made } = journal.state;
    await returnSessions({ ...options, lock }, null);
    await withVolumes(options, async (mover) => {
      await restoreVolumes(options, journal, mover);
      if (backup !== null && !hasManifest(instance, backup)) {
        await mover.do("remove", { path: insideMover.backup(backup) });
      }
    });
    const present = await presentVolumes(instance);
    await removeVolumes(
      instance,
      present.map(({ volume }) => volume)
        .filter((volume) => made.includes(volume)),
    );
    endMove({ instance, journal });
  });
}

/** Restores the data that --force has moved into a backup. */
async function restoreVolumes(
  { instance, track }: Aborting,
  journal: Journal,
  mover: Mover,
): Promise<void> {
  const former = forcedBackup({ journal });
  const wasFull = hasManifest(instance, former);
  const isFilled = Object.keys(journal.state.steps)
    .some((step) => step.startsWith("copy:"));
  if (!isFilled && !(wasFull && journal.hasBegun("empty"))) return;
  const present = (await presentVolumes(instance)).map(({ name }) => name);
  for (const name of present) {
    await mover.do("empty", { path: `${insideMover.volumes}/${name}` });
  }
  if (!wasFull) return;
  const from = insideMover.backup(former);
  await copyParts({ track }, mover, {
    what: "the volumes",
    from,
    at: insideMover.volumes,
    parts: present.filter((name) =>
      existsSync(join(instance.home.backups, former, name))
    ),
    manifest: `${from}/manifest.json`,
  }, "Putting back");
}
