// What is remembered of a migration that has ended, until its source is removed or
// it is rolled back.

import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { inspectVolume } from "../docker/docker.ts";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { writeWhole } from "../std/owned.ts";
import { label } from "../instance/labels.ts";
import type { HomePaths } from "../instance/paths.ts";
import { movedParts } from "../instance/volumes.ts";
import { volumeOf } from "./parts.ts";

const migratedSchema = v.object({
  version: v.literal(1),
  stamp: v.string(),
  /** Null where none was wanted. */
  backup: v.nullable(v.string()),
  /** The volumes that were filled, with their ids. */
  volumes: v.optional(v.record(v.string(), v.string())),
});

export type MigratedState = v.InferOutput<typeof migratedSchema>;

const pathOf = (home: HomePaths) => join(home.migration, "migrated.json");

export function writeMigrated(
  { home, owner }: Pick<Instance, "home" | "owner">,
  state: Omit<MigratedState, "version">,
): void {
  const text = JSON.stringify({ version: 1, ...state }, null, 2);
  writeWhole(pathOf(home), `${text}\n`, owner);
}

export function readMigrated(
  { home }: Pick<Instance, "home">,
): MigratedState | undefined {
  if (!existsSync(pathOf(home))) return undefined;
  try {
    const text = readFileSync(pathOf(home), "utf8");
    return v.parse(migratedSchema, JSON.parse(text));
  } catch (error) {
    throw new Failure("failed", `Cannot read ${pathOf(home)}`, {
      cause: error,
    });
  }
}

/** The volumes that there are, with their ids: empty for one that has none. */
export async function volumeIds(
  instance: Instance,
): Promise<Record<string, string>> {
  const volumes = await Promise.all(
    movedParts.map((part) =>
      inspectVolume(instance.docker, volumeOf(instance, part))
    ),
  );
  return Object.fromEntries(
    volumes.flatMap((volume) =>
      volume ? [[volume.Name, volume.Labels?.[label.volume] ?? ""]] : []
    ),
  );
}

/**
 * Names of the parts whose volumes hold what was migrated, and what was added to
 * that: not those that were made since.
 */
export async function migratedParts(instance: Instance): Promise<string[]> {
  const migrated = readMigrated(instance);
  if (!migrated) return [];
  const { volumes } = migrated;
  const ids = await volumeIds(instance);
  return movedParts.filter((part) => {
    const name = volumeOf(instance, part);
    return volumes === undefined || volumes[name] === ids[name];
  }).map(({ name }) => name);
}

export function forgetMigrated({ home }: Pick<Instance, "home">): void {
  rmSync(pathOf(home), { force: true });
}
