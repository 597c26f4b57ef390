// Chooses the parts that a rollback restores.

import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Instance } from "../instance/instance.ts";
import { readJournal } from "../instance/migration-journal.ts";
import { Failure } from "../std/errors.ts";
import { migratedParts } from "./migrated.ts";
import type { Mover } from "./mover-container.ts";
import { insideMover } from "./mover/places.ts";
import { presentVolumes } from "./parts.ts";

/** Names of the parts that were migrated to the existing volumes. */
export async function partsMigrated(
  instance: Pick<Instance, "docker" | "names" | "home" | "owner">,
): Promise<string[]> {
  const journal = readJournal(instance);
  // A migration that is only missing its final check.
  if (journal?.state.kind === "migrate") return journal.state.parts;
  return journal?.state.migrated ?? await migratedParts(instance);
}

/**
 * Names of the parts to restore from the volumes. A local directory that was never
 * migrated holds current data. It stays if its volume is empty. If both hold data,
 * throws an `unsafe` Failure, unless `replaceLocal` is set. No directory is created for
 * an empty volume.
 */
export async function partsToRestore(
  instance: Pick<Instance, "docker" | "names" | "home">,
  mover: Mover,
  migrated: string[],
  { replaceLocal }: { replaceLocal: boolean },
): Promise<string[]> {
  const names = (await presentVolumes(instance)).map(({ name }) => name);
  const unmoved = await mover.do("withData", {
    at: insideMover.home,
    parts: names.filter((name) => !migrated.includes(name)),
  });
  const at = insideMover.volumes;
  const holding = await mover.do("withData", { at, parts: names });
  const both = unmoved.filter((name) => holding.includes(name))
    .map((name) => join(instance.home.home, name));
  if (both.length > 0 && !replaceLocal) {
    throw new Failure(
      "unsafe",
      `Never migrated, but the volumes contain other data: ${both.join(", ")}`,
      {
        hint:
          "Migrate them; that moves the volumes' data into a backup: hal9000-migrate --force. " +
          "Or replace them, and move them into a backup: hal9000-rollback " +
          "--replace-local",
      },
    );
  }
  return names.filter((name) =>
    holding.includes(name) ||
    migrated.includes(name) && existsSync(join(instance.home.home, name))
  );
}
