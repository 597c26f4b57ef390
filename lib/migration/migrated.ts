// What is remembered of a migration that has ended, until its source is removed or
// it is rolled back.

import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { Failure } from "../errors.ts";
import type { Instance } from "../instance.ts";
import { writeWhole } from "../owned.ts";
import type { HomePaths } from "../paths.ts";

const migratedSchema = v.object({
  version: v.literal(1),
  stamp: v.string(),
  /** Null where none was wanted. */
  backup: v.nullable(v.string()),
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

export function forgetMigrated({ home }: Pick<Instance, "home">): void {
  rmSync(pathOf(home), { force: true });
}
