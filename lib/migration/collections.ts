// Checks that ChromaDB serves the migrated collections.

import * as v from "valibot";
import { execIn } from "../docker/exec.ts";
import { Failure } from "../std/errors.ts";
import { type Collections, collectionsSchema } from "./mover/collections.ts";
import type { Move } from "./move.ts";
import { withMover } from "./mover-container.ts";
import { insideMover } from "./mover/places.ts";

const servedSchema = v.pipe(v.string(), v.parseJson(), collectionsSchema);

/** Time for ChromaDB to count every collection. */
const countingMs = 60_000;

/**
 * The collections that ChromaDB serves; null if none were migrated. Throws a
 * Failure if they differ from the source. Compares only the names if ChromaDB may
 * have been written to since.
 */
export async function checkCollections(
  { instance, journal, track }: Pick<Move, "instance" | "journal" | "track">,
  /** Whether ChromaDB was in use before this run. */
  { served }: { served: boolean },
): Promise<Collections | null> {
  if (!journal.state.parts.includes("chromadb")) return null;
  const { docker, names, settings } = instance;
  // From the source, because ChromaDB has its copy open. Read-only, as SQLite may
  // write to a database that it opens.
  const reading = { volumes: false, readOnly: true };
  const path = `${insideMover.home}/chromadb`;
  const kept = await withMover(
    instance,
    reading,
    (mover) => mover.do("collections", { path }),
  );
  const port = String(settings.CHROMADB_PORT);
  const command = ["/scripts/mover", "served", port];
  const { exitCode, output } = await execIn(docker, names.parent, command, {
    timeoutMs: countingMs,
  });
  if (exitCode !== 0) {
    throw new Failure("failed", `Cannot ask ChromaDB: ${output.trim()}`, {
      hint: "See why: claudy daemon logs. Then run it again to resume.",
    });
  }
  const found = v.parse(servedSchema, output);
  if (kept === null) {
    track.log(
      "warning: cannot read the expected collections from ChromaDB's files",
    );
    return found;
  }
  const wrong = kept.find(({ name, count }) => {
    const other = found.find((collection) => collection.name === name);
    return served ? !other : other?.count !== count;
  });
  if (!wrong) return found;
  throw new Failure(
    "failed",
    `ChromaDB does not have ${wrong.count} entries in collection "${wrong.name}"`,
    {
      hint:
        "The source is unchanged. Roll back: hal9000-rollback --backup PATH",
    },
  );
}
