// The core of every move: a manifest of the source, copies, and a comparison of each
// copy with that manifest.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { ensureDirectory } from "../std/owned.ts";
import type { Move } from "./move.ts";
import type { Mover } from "./mover-container.ts";
import type { Measured } from "./mover/operations.ts";
import { insideMover, type Place, placesOf, presentVolumes } from "./parts.ts";

/** A tree with its size, where that is known. */
export type Part = Pick<Measured, "name"> & Partial<Measured>;

type Tracked = Pick<Move, "instance" | "track" | "version">;

/** Reads all of the parts, and writes their manifest to a path in the mover. */
export async function writeManifest(
  { instance, track, version }: Tracked,
  mover: Mover,
  { parts, to, kind, what, source }: {
    parts: (Part & Place)[];
    to: string;
    kind: string;
    /** What people see of it: "Reading". */
    what: string;
    /** The version that the data was written by. */
    source?: string;
  },
): Promise<void> {
  const { owner } = instance;
  const versions = {
    "hal-9000-dind": version,
    ...(source === undefined ? {} : { source }),
  };
  const progress = track.begin(what, filesOf(parts));
  await mover.do("manifest", { parts, to, kind, versions, owner }, progress);
}

export interface Verification {
  what: string;
  parts: (Part & Place)[];
  /** A path in the mover. */
  manifest: string;
}

/** Throws a Failure with the first differences where parts are not as they should be. */
export async function verify(
  { track }: Pick<Move, "track">,
  mover: Mover,
  { what, parts, manifest }: Verification,
): Promise<void> {
  const { count, first } = await mover.do(
    "compare",
    { parts, manifest, contents: true },
    track.begin(`Checking ${what}`, filesOf(parts)),
  );
  if (count === 0) return;
  const more = count > first.length ? ` and ${count - first.length} more` : "";
  throw new Failure(
    "failed",
    `Not as it was read, in ${what}: ${first.join("; ")}${more}`,
    {
      hint: "Nothing is lost. Stop what writes to the data, then run it again.",
    },
  );
}

/** Steps: copies each part, then checks them all. */
export async function copyParts(
  { journal, track }: Pick<Move, "journal" | "track">,
  mover: Mover,
  { what, parts, from, to, manifest }: {
    what: string;
    parts: Part[];
    from: (name: string) => string;
    to: (name: string) => string;
    manifest: string;
  },
): Promise<void> {
  for (const { name, entries } of parts) {
    await journal.step(`copy:${name}`, async () => {
      const progress = track.begin(`Copying ${name}`, entries);
      await mover.do("replace", { from: from(name), to: to(name) }, progress);
    });
  }
  await journal.step("verify", async () => {
    try {
      const copies = placesOf(parts, to);
      await verify({ track }, mover, { what, parts: copies, manifest });
    } catch (error) {
      // Either may be at fault: the next run reads the source again.
      journal.forget([
        "manifest",
        ...parts.map(({ name }) => `copy:${name}`),
      ]);
      throw error;
    }
  });
}

/** A backup of parts, which is whole once it has its manifest. */
export async function backUp(
  { instance, track }: Pick<Move, "instance" | "track">,
  mover: Mover,
  { what, parts, manifest, backup }: Verification & {
    /** Below backups/. */
    backup: string;
  },
): Promise<void> {
  makeBackupDirectory(instance, backup);
  const place = (name: string) => insideMover.backup(backup, name);
  for (const { name, path, entries } of parts) {
    const progress = track.begin(`Backing up ${name}`, entries);
    await mover.do("replace", { from: path, to: place(name) }, progress);
  }
  const copies = placesOf(parts, place);
  await verify({ track }, mover, { what, parts: copies, manifest });
  const unnamed = place("manifest.json.tmp");
  await mover.do("replace", { from: manifest, to: unnamed });
  await mover.do("rename", { from: unnamed, to: place("manifest.json") });
}

/** A backup of the volumes that there are, with a manifest of its own. */
export async function backUpVolumes(
  move: Tracked,
  mover: Mover,
  { backup, kind }: { backup: string; kind: string },
): Promise<void> {
  const parts = await presentVolumes(move.instance);
  const manifest = insideMover.work("volumes.json");
  const what = "Reading the volumes";
  await writeManifest(move, mover, { parts, to: manifest, kind, what });
  const copied = "the backup of the volumes";
  await backUp(move, mover, { what: copied, parts, manifest, backup });
}

export function makeBackupDirectory(
  { home, owner }: Pick<Instance, "home" | "owner">,
  backup: string,
): void {
  const [name = "", ...below] = backup.split("/");
  ensureDirectory(join(home.backups, name), 0o700, owner);
  if (below.length > 0) {
    ensureDirectory(join(home.backups, backup), 0o700, owner);
  }
}

/** Whether a backup is whole. */
export function hasManifest(
  { home }: Pick<Instance, "home">,
  backup: string,
): boolean {
  return existsSync(join(home.backups, backup, "manifest.json"));
}

function filesOf(parts: Part[]): number | undefined {
  return parts.reduce<number | undefined>(
    (sum, { files }) =>
      sum === undefined || files === undefined ? undefined : sum + files,
    0,
  );
}
