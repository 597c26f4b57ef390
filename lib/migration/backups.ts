// Lists and verifies backups.

import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { hasManifest } from "./copy.ts";
import type { Track } from "./move.ts";
import { withMover } from "./mover-container.ts";
import { readManifest } from "./mover/manifest.ts";
import { insideMover } from "./mover/places.ts";

export interface Backup {
  /** Name in backups/, e.g. "pre-dind-20261121T130000Z". */
  name: string;
  path: string;
  createdAt: string;
  /** Null for an incomplete backup, which has no manifest. */
  parts: { name: string; files: number; bytes: number }[] | null;
  /** Whether every checksum matches; null if not verified. */
  whole: boolean | null;
  damaged: string[];
}

/** Sorted by age, the newest first. */
export function listBackups({ home }: Pick<Instance, "home">): Backup[] {
  if (!existsSync(home.backups)) return [];
  return readdirSync(home.backups)
    .filter((name) => /^pre-[a-z]+-\d{8}T\d{6}Z/.test(name))
    // A rollback to a backup has saved the data of the volumes there.
    .flatMap((name) =>
      hasManifest({ home }, `${name}/volumes`)
        ? [name, `${name}/volumes`]
        : [name]
    )
    .map((name) => describe(join(home.backups, name), name))
    .sort((a, b) => a.createdAt < b.createdAt ? 1 : -1);
}

function describe(path: string, name: string): Backup {
  const common = { name, path, whole: null, damaged: [] };
  try {
    const { createdAt, parts } = readManifest(join(path, "manifest.json"));
    return { ...common, createdAt, parts };
  } catch {
    const createdAt = statSync(path).mtime.toISOString();
    return { ...common, createdAt, parts: null };
  }
}

/** Verifies the backups, reading every file. */
export async function verifyBackups(
  instance: Instance,
  backups: Backup[],
  track: Track,
): Promise<Backup[]> {
  const options = { volumes: false, readOnly: true };
  return await withMover(instance, options, async (mover) => {
    const verified: Backup[] = [];
    for (const backup of backups) {
      const { name, parts } = backup;
      if (!parts) {
        verified.push({ ...backup, whole: false });
        continue;
      }
      const at = insideMover.backup(name);
      const { first, count } = await mover.do("compare", {
        at,
        parts: parts.map(({ name }) => name),
        manifest: `${at}/manifest.json`,
        contents: true,
      }, track.begin(`Checking ${name}`));
      verified.push({ ...backup, whole: count === 0, damaged: first });
    }
    return verified;
  });
}

/** A verified backup by path or name; throws a Failure if it cannot be restored. */
export async function verifiedBackup(
  instance: Instance,
  given: string,
  track: Track,
): Promise<Backup> {
  const wanted = given.replace(/\/+$/, "");
  const backup = listBackups(instance)
    .find(({ name, path }) => wanted === name || wanted === path);
  if (!backup) {
    throw new Failure("notFound", `There is no backup "${given}"`, {
      hint: "List the backups: rollback --list-backups. They must be in " +
        `${instance.home.backups}.`,
    });
  }
  const [verified = backup] = await verifyBackups(instance, [backup], track);
  if (verified.whole) return verified;
  throw new Failure(
    "unsafe",
    verified.parts
      ? `Backup "${backup.name}" is damaged: ${verified.damaged.join("; ")}`
      : `Backup "${backup.name}" is incomplete: it has no manifest`,
    { hint: "Choose another: rollback --list-backups --verify" },
  );
}
