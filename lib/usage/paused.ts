// Sessions that were paused because they sent too many requests: a file for each in
// HAL9000_HOME/usage/paused. A command lets one go on by removing its file.

import { createHash } from "node:crypto";
import { rmSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { readRecordFiles } from "../instance/record-file.ts";
import type { Instance } from "../instance/instance.ts";
import type { HomePaths } from "../instance/paths.ts";
import { writeAtomic } from "../std/owned.ts";

export const pausedSchema = v.object({
  session: v.string(),
  project: v.string(),
  at: v.pipe(v.string(), v.isoTimestamp()),
  maxPerMinute: v.number(),
});

export type Paused = v.InferOutput<typeof pausedSchema>;

type Home = Pick<Instance, "home" | "owner">;

export function readPaused(instance: Home): Paused[] {
  return readRecordFiles(instance, instance.home.usagePaused, pausedSchema)
    .sort((a, b) => a.session < b.session ? -1 : 1);
}

export function pause({ home, owner }: Home, paused: Paused): void {
  writeAtomic(pathOf(home, paused.session), JSON.stringify(paused), owner);
}

export function release({ home }: Pick<Instance, "home">, session: string) {
  rmSync(pathOf(home, session), { force: true });
}

function pathOf(home: HomePaths, session: string): string {
  const digest = createHash("sha256").update(session).digest("hex");
  return join(home.usagePaused, `${digest.slice(0, 32)}.json`);
}
