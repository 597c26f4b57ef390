// The end of a rollback: empties and removes the volumes that were copied.

import { Failure } from "../std/errors.ts";
import { freeStamp, type Move } from "./move.ts";
import type { Mover } from "./mover-container.ts";
import { insideMover } from "./mover/places.ts";
import { presentVolumes, removeVolumes } from "./parts.ts";
import { manifest, replacedBackup } from "./rollback-steps.ts";

/**
 * Empties the volumes first: the memory bank's is a directory of the home, which
 * would stay. Returns the names of the volumes that still contain data.
 */
export async function emptyVolumes(
  { instance, journal }: Move,
  mover: Mover,
): Promise<string[]> {
  const { backup, keepVolumes, parts: moved } = journal.state;
  if (keepVolumes) return [];
  const parts = (await presentVolumes(instance)).map(({ name }) => name);
  const volumes = { at: insideMover.volumes, parts };
  const isSaved = (name: string) => backup !== null || moved.includes(name);
  if (!journal.hasBegun("empty")) {
    await refuseChange({ instance, journal }, mover, parts.filter(isSaved));
  }
  await journal.step("empty", async () => {
    const holding = await mover.do("withData", volumes);
    for (const name of parts) {
      // Keep data that was not copied.
      if (!isSaved(name) && holding.includes(name)) continue;
      await mover.do("empty", { path: `${insideMover.volumes}/${name}` });
    }
  });
  return await mover.do("withData", volumes);
}

/** Starts over if the volumes have changed since they were copied. */
async function refuseChange(
  { instance, journal }: Pick<Move, "instance" | "journal">,
  mover: Mover,
  parts: string[],
): Promise<void> {
  if (parts.length === 0) return;
  const current = insideMover.backup(`${replacedBackup({ journal })}/volumes`);
  const { count, first } = await mover.do("compare", {
    at: insideMover.volumes,
    parts,
    manifest: journal.state.backup === null
      ? manifest
      : `${current}/manifest.json`,
    contents: false,
  });
  if (count === 0) return;
  // The data that is now in place is backed up like the data before it.
  journal.forgetAllBut(["stop"]);
  journal.note({ stamp: freeStamp(instance, ["pre-rollback"]) });
  throw new Failure(
    "busy",
    `Volumes changed since they were copied: ${first.join("; ")}`,
    { hint: "Stop what writes to the volumes, then run it again." },
  );
}

/** Removes the volumes, except those with data. Returns the removed names. */
export async function removeCopied(
  { instance, journal, track }: Move,
  full: string[],
): Promise<string[]> {
  if (journal.state.keepVolumes) return [];
  for (const name of full) {
    track.log(`warning: the volume of ${name} contains data; keeping it`);
  }
  const removed = (await presentVolumes(instance))
    .filter(({ name }) => !full.includes(name))
    .map(({ volume }) => volume);
  await removeVolumes(instance, removed);
  return removed;
}
