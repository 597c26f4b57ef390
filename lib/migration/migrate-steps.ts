// The steps of a migration.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { stopDaemon } from "../daemon/daemon.ts";
import { inspectVolume } from "../docker/docker.ts";
import { ensureVolume } from "../instance/volumes.ts";
import { refuseWorkers } from "./checks.ts";
import { backUp, backUpVolumes, copyInSteps, hasManifest } from "./copy.ts";
import { occupiedVolumes, refuseOccupied } from "./migrate-plan.ts";
import { freeStamp, manifestFile, type Move } from "./move.ts";
import type { Mover } from "./mover-container.ts";
import { insideMover } from "./mover/places.ts";
import { presentVolumes, sessionsPart } from "./parts.ts";

const manifest = `${insideMover.work}/${manifestFile.migrate}`;

const movedOf = ({ journal }: Pick<Move, "journal">) =>
  journal.state.parts.filter((name) => name !== sessionsPart);

export async function readSource(move: Move): Promise<void> {
  const { journal, lock, track } = move;
  await forgetChanged(move);
  const { parts } = journal.state;
  const source = { at: insideMover.home, parts, to: manifest, kind: "migrate" };
  await journal.step(
    "manifest",
    () => lock.do("manifest", source, track.begin("Reading")),
  );
}

/** Starts over if the source has changed since its manifest was written. */
async function forgetChanged(move: Move): Promise<void> {
  const { instance, journal, lock, track } = move;
  const path = join(instance.home.migration, manifestFile.migrate);
  const isSaved = journal.isDone("backup") || journal.state.skipBackup;
  // From then on, ChromaDB works on the copy, which is the current data.
  if (!existsSync(path) || journal.hasBegun("start")) return;
  const { count, first } = await lock.do("compare", {
    at: insideMover.home,
    // Sessions are only backed up.
    parts: isSaved ? movedOf(move) : journal.state.parts,
    manifest,
    contents: false,
  });
  if (count === 0) return;
  track.log(`Changed since the last run (${first[0]}): starting over`);
  journal.forgetAllBut(["volumes", "save", "empty"]);
  // Keep a complete backup: it may be the only copy of files deleted since.
  journal.note({ backup: `pre-dind-${freeStamp(instance, ["pre-dind"])}` });
}

export async function backUpSource(move: Move): Promise<void> {
  const { journal, lock } = move;
  const { skipBackup, backup, parts } = journal.state;
  if (skipBackup || backup === null) return;
  await journal.step("backup", () =>
    backUp(move, lock, {
      what: "the backup",
      from: insideMover.home,
      at: insideMover.backup(backup),
      parts,
      manifest,
    }));
}

export async function makeVolumes(move: Move): Promise<void> {
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

/** The backup with the data that --force moves out of the volumes. */
export function forcedBackup({ journal }: Pick<Move, "journal">): string {
  return `pre-force-${journal.state.stamp}`;
}

/** With `force`, moves the volumes' data into a backup. */
export async function vacateVolumes(
  move: Move,
  mover: Mover,
  { force }: { force: boolean },
): Promise<void> {
  const { instance, journal } = move;
  if (movedOf(move).length === 0) return;
  const backup = forcedBackup(move);
  await journal.step("save", async () => {
    // Keep a complete backup: the volumes may have been half emptied since.
    if (hasManifest(instance, backup)) return;
    const occupied = await occupiedVolumes(instance, mover);
    if (occupied.length === 0) return;
    if (!force) refuseOccupied(instance, occupied);
    await backUpVolumes(move, mover, { backup, kind: "force" });
  });
  await journal.step("empty", async () => {
    if (!hasManifest(instance, backup)) return;
    for (const { name } of await presentVolumes(instance)) {
      await mover.do("empty", { path: `${insideMover.volumes}/${name}` });
    }
  });
}

export async function copySource(move: Move, mover: Mover): Promise<void> {
  await copyInSteps(move, mover, {
    what: "the volumes",
    from: insideMover.home,
    at: insideMover.volumes,
    parts: movedOf(move),
    manifest,
  });
}
