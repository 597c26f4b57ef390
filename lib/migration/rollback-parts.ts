// Which parts a rollback brings back.

import { join } from "node:path";
import type { Instance } from "../instance/instance.ts";
import { readJournal } from "../instance/migration-journal.ts";
import { Failure } from "../std/errors.ts";
import { migratedParts } from "./migrated.ts";
import type { Mover } from "./mover-container.ts";
import { insideMover } from "./mover/places.ts";
import { presentVolumes } from "./parts.ts";

/** Names of the parts that were migrated to the volumes that there are. */
export async function partsMigrated(
  instance: Pick<Instance, "docker" | "names" | "home" | "owner">,
): Promise<string[]> {
  const journal = readJournal(instance);
  // A migration that has come to its end but for the last look at ChromaDB.
  if (journal?.state.kind === "migrate") return journal.state.parts;
  return journal?.state.migrated ?? await migratedParts(instance);
}

/**
 * Names of the volumes' parts that come back. A directory here that was never
 * migrated is itself the data: it stays where its volume holds none, and throws an
 * `unsafe` Failure where both hold data, unless it may be replaced.
 */
export async function partsToBring(
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
      `Never migrated, and the volumes hold other data: ${both.join(", ")}`,
      {
        hint:
          "Migrate them: migrate --force keeps what the volumes hold as a " +
          "backup. Or replace them, and keep them as a backup: rollback " +
          "--replace-local",
      },
    );
  }
  return names.filter((name) =>
    !unmoved.includes(name) || holding.includes(name)
  );
}
