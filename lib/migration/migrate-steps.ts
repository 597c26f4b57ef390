// The steps of a migration.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { stopDaemon } from "../daemon/daemon.ts";
import { inspectVolume } from "../docker/docker.ts";
import { ensureVolume } from "../instance/volumes.ts";
import { refuseWorkers } from "./checks.ts";
import {
  backUp,
  backUpVolumes,
  copyParts,
  hasManifest,
  type Part,
  writeManifest,
} from "./copy.ts";
import { occupiedVolumes, refuseOccupied } from "./migrate-plan.ts";
import { freeStamp, manifestName, type Move } from "./move.ts";
import type { Mover } from "./mover-container.ts";
import {
  insideMover,
  placesOf,
  presentVolumes,
  sessionsPart,
} from "./parts.ts";

/** A migration with its parts: those of the run that began. */
export interface Migration extends Move {
  parts: Part[];
}

const manifest = insideMover.work(manifestName("migrate"));

const movedOf = ({ parts }: Pick<Migration, "parts">) =>
  parts.filter(({ name }) => name !== sessionsPart);

export async function readSource(move: Migration): Promise<void> {
  await forgetChanged(move);
  await move.journal.step("manifest", () =>
    writeManifest(move, move.lock, {
      parts: placesOf(move.parts, insideMover.local),
      to: manifest,
      kind: "migrate",
      what: "Reading",
      source: "0.5",
    }));
}

/** Begins anew where the source has changed since its manifest was made. */
async function forgetChanged(move: Migration): Promise<void> {
  const { instance, journal, lock, track } = move;
  const path = join(instance.home.migration, manifestName("migrate"));
  // What ChromaDB has opened is the data from then on.
  if (!existsSync(path) || journal.hasBegun("start")) return;
  // Sessions are only backed up.
  const parts = journal.isDone("backup") ? movedOf(move) : move.parts;
  const { count, first } = await lock.do("compare", {
    parts: placesOf(parts, insideMover.local),
    manifest,
    contents: false,
  });
  if (count === 0) return;
  track.log(`Changed since the last run (${first[0]}): beginning anew`);
  const kept = ["volumes", "save", "empty"];
  journal.forget(
    Object.keys(journal.state.steps).filter((step) => !kept.includes(step)),
  );
  // A backup that is whole may be the only one of what has gone since.
  journal.note({ backup: `pre-dind-${freeStamp(instance, ["pre-dind"])}` });
}

export async function backUpSource(move: Migration): Promise<void> {
  const { journal, lock, parts } = move;
  const { skipBackup, backup } = journal.state;
  if (skipBackup || backup === null) return;
  await journal.step("backup", () =>
    backUp(move, lock, {
      what: "the backup",
      parts: placesOf(parts, insideMover.local),
      manifest,
      backup,
    }));
}

export async function makeVolumes(move: Migration): Promise<void> {
  const { instance, journal, track } = move;
  await journal.step("volumes", async () => {
    await refuseWorkers(instance);
    await stopDaemon(instance, track.log);
    for (const volume of Object.values(instance.names.volumes)) {
      if (await inspectVolume(instance.docker, volume)) continue;
      journal.note({ made: [...journal.state.made, volume] });
      await ensureVolume(instance, volume);
    }
  });
}

/** Where what the volumes held is kept by --force. */
export function formerBackup({ journal }: Pick<Move, "journal">): string {
  return `pre-force-${journal.state.stamp}`;
}

/** With `force`, moves what the volumes hold into a backup. */
export async function vacateVolumes(
  move: Migration,
  mover: Mover,
  { force }: { force: boolean },
): Promise<void> {
  const { instance, journal } = move;
  const backup = formerBackup(move);
  await journal.step("save", async () => {
    // One that is whole is of volumes that may have been half emptied since.
    if (hasManifest(instance, backup)) return;
    const occupied = await occupiedVolumes(instance, mover);
    if (occupied.length === 0) return;
    if (!force) refuseOccupied(instance, occupied);
    await backUpVolumes(move, mover, { backup, kind: "force" });
  });
  await journal.step("empty", async () => {
    if (!hasManifest(instance, backup)) return;
    for (const { path } of await presentVolumes(instance)) {
      await mover.do("empty", { path });
    }
  });
}

export async function copySource(move: Migration, mover: Mover): Promise<void> {
  await copyParts(move, mover, {
    what: "the volumes",
    parts: movedOf(move),
    from: insideMover.local,
    to: insideMover.volume,
    manifest,
  });
}
