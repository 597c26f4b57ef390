// The record of a finished migration, kept until its source is removed or it is
// rolled back.

import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { writeAtomic } from "../std/owned.ts";
import type { HomePaths } from "../instance/paths.ts";
import { movedNames, presentVolumes, volumeOf } from "./parts.ts";

const migratedSchema = v.object({
  version: v.literal(1),
  stamp: v.string(),
  /** Null with --skip-backup. */
  backup: v.nullable(v.string()),
  /** Ids of the filled volumes, by name. */
  volumes: v.optional(v.record(v.string(), v.string())),
});

export type MigratedState = v.InferOutput<typeof migratedSchema>;

const pathOf = (home: HomePaths) => join(home.migration, "migrated.json");

export function writeMigrated(
  { home, owner }: Pick<Instance, "home" | "owner">,
  state: Omit<MigratedState, "version">,
): void {
  const text = JSON.stringify({ version: 1, ...state }, null, 2);
  writeAtomic(pathOf(home), `${text}\n`, owner);
}

export function readMigrated(
  { home }: Pick<Instance, "home">,
): MigratedState | undefined {
  const path = pathOf(home);
  if (!existsSync(path)) return undefined;
  try {
    return v.parse(migratedSchema, JSON.parse(readFileSync(path, "utf8")));
  } catch (error) {
    throw new Failure("failed", `Cannot read ${path}`, { cause: error });
  }
}

type Migrated = Pick<Instance, "docker" | "names" | "home">;

/** Ids of the existing volumes, by name. */
export async function volumeIds(
  instance: Omit<Migrated, "home">,
): Promise<Record<string, string>> {
  const present = await presentVolumes(instance);
  return Object.fromEntries(present.map(({ volume, id }) => [volume, id]));
}

/**
 * Names of the parts whose volumes contain the migrated data, including later
 * additions. Volumes that were recreated since are left out.
 */
export async function migratedParts(instance: Migrated): Promise<string[]> {
  const migrated = readMigrated(instance);
  if (!migrated) return [];
  const { volumes } = migrated;
  const ids = await volumeIds(instance);
  return movedNames.filter((name) => {
    const volume = volumeOf(instance, name) ?? "";
    return volumes === undefined || volumes[volume] === ids[volume];
  });
}

export function forgetMigrated({ home }: Pick<Instance, "home">): void {
  rmSync(pathOf(home), { force: true });
}
