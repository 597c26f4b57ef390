// Copies parts, and verifies each copy against a manifest.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import type { Journal } from "../instance/migration-journal.ts";
import type { Move, Track } from "./move.ts";
import type { Mover } from "./mover-container.ts";
import { insideMover } from "./mover/places.ts";
import { presentVolumes } from "./parts.ts";

/** Parts in a directory of the mover, and the manifest to verify them with. */
export interface Verification {
  /** For display, e.g. "the backup". */
  what: string;
  at: string;
  parts: string[];
  manifest: string;
}

/** Throws a Failure with the first differences if parts do not match their manifest. */
export async function verify(
  { track }: { track: Track },
  mover: Mover,
  { what, ...compared }: Verification,
): Promise<void> {
  const progress = track.begin(`Checking ${what}`);
  const all = { ...compared, contents: true };
  const { count, first } = await mover.do("compare", all, progress);
  if (count === 0) return;
  const more = count > first.length ? ` and ${count - first.length} more` : "";
  const message = `Verification failed for ${what}: ${first.join("; ")}${more}`;
  throw new Failure("failed", message, {
    hint: "No data was lost. Stop what writes to the data, then run it again.",
  });
}

export interface Copies extends Verification {
  /** The directory in the mover to copy from. */
  from: string;
}

/** Copies parts over what is there, and verifies them all. */
export async function copyParts(
  { track, step = runDirectly }: { track: Track; step?: Journal["step"] },
  mover: Mover,
  { from, ...copies }: Copies,
  doing = "Copying",
): Promise<void> {
  const { at, parts } = copies;
  for (const name of parts) {
    await step(`copy:${name}`, () =>
      mover.do(
        "replace",
        { from: `${from}/${name}`, to: `${at}/${name}` },
        track.begin(`${doing} ${name}`),
      ));
  }
  await step("verify", () => verify({ track }, mover, copies));
}

const runDirectly: Journal["step"] = async (_, run) => {
  await run();
};

/** The same as steps of a move, whose source has its own manifest. */
export async function copyInSteps(
  { journal, track }: Pick<Move, "journal" | "track">,
  mover: Mover,
  copies: Copies,
): Promise<void> {
  const step: Journal["step"] = (name, run) => journal.step(name, run);
  try {
    await copyParts({ track, step }, mover, copies);
  } catch (error) {
    // The source or the copy may be damaged: the next run reads both again.
    const again = ["manifest", ...copies.parts.map((name) => `copy:${name}`)];
    if (journal.hasBegun("verify")) journal.forget(again);
    throw error;
  }
}

/** Copies parts into a backup. The manifest is written last and marks it complete. */
export async function backUp(
  { track }: { track: Track },
  mover: Mover,
  copies: Copies,
): Promise<void> {
  const { at, manifest } = copies;
  await mover.do("remove", { path: `${at}/manifest.json` });
  await copyParts({ track }, mover, copies, "Backing up");
  const unfinished = `${at}/manifest.json.tmp`;
  await mover.do("replace", { from: manifest, to: unfinished });
  await mover.do("rename", { from: unfinished, to: `${at}/manifest.json` });
}

/** Backs up the existing volumes, with a manifest. */
export async function backUpVolumes(
  { instance, track }: Pick<Move, "instance" | "track">,
  mover: Mover,
  { backup, kind }: { backup: string; kind: string },
): Promise<void> {
  const parts = (await presentVolumes(instance)).map(({ name }) => name);
  const from = insideMover.volumes;
  const manifest = `${insideMover.work}/volumes.json`;
  const source = { at: from, parts, to: manifest, kind };
  await mover.do("manifest", source, track.begin("Reading the volumes"));
  const what = "the backup of the volumes";
  const at = insideMover.backup(backup);
  await backUp({ track }, mover, { what, from, at, parts, manifest });
}

/** Whether a backup is complete. */
export function hasManifest(
  { home }: Pick<Instance, "home">,
  backup: string,
): boolean {
  return existsSync(join(home.backups, backup, "manifest.json"));
}
