// Lists and verifies backups, also those that the original migrate-to-dind.sh made. Their
// manifest contains no checksums.

import { existsSync, lstatSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { Failure } from "../std/errors.ts";
import { readJson } from "../std/json.ts";
import type { Instance } from "../instance/instance.ts";
import { isOriginalBackup } from "../instance/volumes.ts";
import { hasManifest } from "./copy.ts";
import type { Track } from "./move.ts";
import { withMover } from "./mover-container.ts";
import { readManifest } from "./mover/manifest.ts";
import { insideMover } from "./mover/places.ts";
import { backupParts, movedNames } from "./parts.ts";

export interface Backup {
  /** Name in backups/, e.g. "pre-dind-20261121T130000Z". */
  name: string;
  path: string;
  createdAt: string;
  /** Null for an incomplete backup, which has no manifest. */
  parts: { name: string; files: number; bytes: number }[] | null;
  /** Whether its manifest has checksums; those of the original script have none. */
  checksums: boolean;
  /**
   * Whether every checksum matches, or without checksums, whether every file can be
   * read; null if not verified.
   */
  whole: boolean | null;
  damaged: string[];
}

/** Sorted by age, the newest first. */
export function listBackups({ home }: Pick<Instance, "home">): Backup[] {
  if (!existsSync(home.backups)) return [];
  return readdirSync(home.backups)
    .filter((name) =>
      /^pre-[a-z]+-\d{8}T\d{6}Z/.test(name) || isOriginalBackup(name)
    )
    // A rollback to a backup has saved the data of the volumes there.
    .flatMap((name) =>
      hasManifest({ home }, `${name}/volumes`)
        ? [name, `${name}/volumes`]
        : [name]
    )
    .map((name) => describe(join(home.backups, name), name))
    .sort((a, b) => a.createdAt < b.createdAt ? 1 : -1);
}

/** https://github.com/Hellblazer/hal-9000, scripts/migrate-to-dind.sh, create_backup */
const originalSchema = v.object({
  created_at: v.string(),
  source_version: v.string(),
});

function describe(path: string, name: string): Backup {
  const checksums = !isOriginalBackup(name);
  const common = { name, path, checksums, whole: null, damaged: [] };
  if (!checksums) return { ...common, ...describeOriginal(path) };
  try {
    const { createdAt, parts } = readManifest(join(path, "manifest.json"));
    return { ...common, createdAt, parts };
  } catch {
    const createdAt = statSync(path).mtime.toISOString();
    return { ...common, createdAt, parts: null };
  }
}

function describeOriginal(path: string): Pick<Backup, "createdAt" | "parts"> {
  const manifest = readJson(join(path, "manifest.json"), originalSchema);
  const time = Date.parse(manifest?.created_at ?? "");
  const createdAt = Number.isNaN(time) ? statSync(path).mtime : new Date(time);
  const parts = movedNames
    .filter((name) => isDirectory(join(path, name)))
    .map((name) => ({ name, ...sizeOf(join(path, name)) }));
  return {
    createdAt: createdAt.toISOString(),
    parts: manifest ? parts : null,
  };
}

function isDirectory(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

/** Of a directory that the current user has made, so that all of it can be read. */
function sizeOf(directory: string): { files: number; bytes: number } {
  const sizes = readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => lstatSync(join(parentPath, name)).size);
  return {
    files: sizes.length,
    bytes: sizes.reduce((sum, size) => sum + size, 0),
  };
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
      const { name, checksums } = backup;
      if (!backup.parts) {
        verified.push({ ...backup, whole: false });
        continue;
      }
      const at = insideMover.backup(name);
      const parts = backup.parts.map(({ name }) => name);
      const progress = track.begin(`Checking ${name}`);
      const { first, count } = checksums
        ? await mover.do(
          "compare",
          { at, parts, manifest: `${at}/manifest.json`, contents: true },
          progress,
        )
        : await mover.do("examine", { at, parts }, progress);
      verified.push({ ...backup, whole: count === 0, damaged: first });
    }
    return verified;
  });
}

/** Whether it is complete, and has more than Claude homes of unused sessions. */
export function isRestorable({ parts }: Backup): boolean {
  return parts?.some(({ name }) => backupParts.includes(name)) ?? false;
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
      hint:
        "List the backups: hal9000-rollback --list-backups. They must be in " +
        `${instance.home.backups}.`,
    });
  }
  if (backup.parts && !isRestorable(backup)) {
    throw new Failure(
      "notFound",
      `Backup "${backup.name}" has no data to restore`,
      {
        hint: "Choose another: hal9000-rollback --list-backups",
      },
    );
  }
  const [verified = backup] = await verifyBackups(instance, [backup], track);
  if (verified.whole) return verified;
  throw new Failure(
    "unsafe",
    verified.parts
      ? `Backup "${backup.name}" is damaged: ${verified.damaged.join("; ")}`
      : `Backup "${backup.name}" is incomplete: it has no manifest`,
    { hint: "Choose another: hal9000-rollback --list-backups --verify" },
  );
}
