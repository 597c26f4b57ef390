// Whether ChromaDB serves what was migrated.

import * as v from "valibot";
import { execIn } from "../docker/exec.ts";
import { Failure } from "../std/errors.ts";
import { type Collections, collectionsSchema } from "./mover/collections.ts";
import type { Move } from "./move.ts";
import { withMover } from "./mover-container.ts";
import { insideMover } from "./mover/places.ts";

const servedSchema = v.pipe(v.string(), v.parseJson(), collectionsSchema);

/** ChromaDB is asked for the count of each collection. */
const countingMs = 60_000;

/**
 * The collections that ChromaDB serves; null where none were moved. Throws a Failure
 * where they are not those of the source: by name alone where somebody may have
 * written to them since.
 */
export async function checkCollections(
  { instance, journal, track }: Pick<Move, "instance" | "journal" | "track">,
  /** Whether it was in use before this run. */
  { served }: { served: boolean },
): Promise<Collections | null> {
  if (!journal.state.parts.includes("chromadb")) return null;
  const { docker, names, settings } = instance;
  // Of the source: ChromaDB has its own copy open by now. SQLite may write where it can.
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
    throw new Failure("failed", `Cannot ask ChromaDB: ${output.trim()}`);
  }
  const found = v.parse(servedSchema, output);
  if (kept === null) {
    track.log(
      "warning: what ChromaDB should hold cannot be told from its files",
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
    `ChromaDB does not hold ${wrong.count} of collection "${wrong.name}"`,
    { hint: "Your source is as it was; go back: rollback --backup PATH" },
  );
}
