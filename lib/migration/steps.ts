// What migrate and rollback both do.

import { existsSync } from "node:fs";
import { join } from "node:path";
import type * as v from "valibot";
import { inspectVolume } from "../docker/docker.ts";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { stampOf } from "../instance/migration-journal.ts";
import type { Mover } from "./mover-container.ts";
import { comparisonSchema, type Progress } from "./mover/operations.ts";
import { insideMover, volumeOf } from "./parts.ts";
import { movedParts } from "../instance/volumes.ts";

/** How people hear of a move. */
export interface Track {
  log: Log;
  /** Something begins, of so many entries; what it gives is told of each. */
  begin(what: string, total?: number): Progress;
}

export interface Verification {
  what: string;
  parts: { name: string; path: string }[];
  manifest: string;
}

export type Comparison = v.InferOutput<typeof comparisonSchema>;

/** How parts differ from a manifest, every byte of them. */
export async function compare(
  mover: Mover,
  { parts, manifest }: Omit<Verification, "what">,
  progress: Progress,
): Promise<Comparison> {
  return await mover.do(
    { op: "compare", parts, manifest, contents: true },
    comparisonSchema,
    progress,
  );
}

/** Throws a Failure with the first differences where parts are not as they should be. */
export async function verify(
  mover: Mover,
  verification: Verification,
  progress: Progress,
): Promise<void> {
  const { count, first } = await compare(mover, verification, progress);
  if (count === 0) return;
  const more = count > first.length ? ` and ${count - first.length} more` : "";
  throw new Failure(
    "failed",
    `Not as it was read, in ${verification.what}: ${first.join("; ")}${more}`,
    {
      hint: "Nothing is lost. Stop what writes to the data, then run it again.",
    },
  );
}

/** Of volumes that are there: as a backup with a manifest of its own. */
export async function backUpVolumes(
  instance: Instance,
  mover: Mover,
  { backup, below = "", kind, version }: {
    backup: string;
    /** A directory within the backup. */
    below?: string;
    kind: string;
    version: string;
  },
  track: Track,
): Promise<void> {
  const place = (...names: string[]) =>
    insideMover.backup(backup, ...[below].filter(Boolean), ...names);
  const { owner } = instance;
  const parts = await presentVolumes(instance);
  await mover.act({ op: "directory", path: insideMover.backup(backup), owner });
  if (below !== "") await mover.act({ op: "directory", path: place(), owner });
  const manifest = insideMover.work("volumes.json");
  await mover.act({
    op: "manifest",
    parts,
    to: manifest,
    kind,
    versions: { "hal-9000-dind": version },
    owner,
  }, track.begin("Reading the volumes"));
  for (const { name, path } of parts) {
    const progress = track.begin(`Backing up volume ${name}`);
    await mover.act({ op: "remove", path: place(name) });
    await mover.act({ op: "copy", from: path, to: place(name) }, progress);
  }
  await verify(mover, {
    what: "the backup of the volumes",
    parts: parts.map(({ name }) => ({ name, path: place(name) })),
    manifest,
  }, track.begin("Checking the backup of the volumes"));
  await mover.act({
    op: "copyFile",
    from: manifest,
    to: place("manifest.json"),
  });
}

/** As they are in the mover. */
export async function presentVolumes(
  instance: Instance,
): Promise<{ name: string; path: string }[]> {
  const present = await Promise.all(movedParts.map(async (part) => {
    const volume = await inspectVolume(
      instance.docker,
      volumeOf(instance, part),
    );
    const { name } = part;
    return volume ? [{ name, path: insideMover.volume(name) }] : [];
  }));
  return present.flat();
}

/** A stamp of now that no backup of these kinds has. */
export function freeStamp({ home }: Instance, kinds: string[]): string {
  const now = stampOf(new Date());
  for (let count = 1;; count++) {
    const stamp = count === 1 ? now : `${now}-${count}`;
    const taken = kinds.some((kind) =>
      existsSync(join(home.backups, `${kind}-${stamp}`))
    );
    if (!taken) return stamp;
  }
}
