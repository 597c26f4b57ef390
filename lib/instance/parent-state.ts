// What the parent says of itself, in run/parent.json.

import { rmSync } from "node:fs";
import * as v from "valibot";
import type { Instance } from "./instance.ts";
import { writeAtomic } from "../std/owned.ts";
import { readJson } from "../std/json.ts";

const parentStateSchema = v.object({
  version: v.literal(1),
  /** Id of the container that says so. */
  container: v.string(),
  /** Digest of the sources that it was made of, see build-digest.ts. */
  build: v.optional(v.string()),
  /** Whether it works; ChromaDB may still be starting. */
  ready: v.boolean(),
  /** How long that took. */
  readyMs: v.nullable(v.number()),
  /** What keeps workers from ChromaDB's answers; null for nothing. */
  chromadbFault: v.nullable(v.string()),
  phases: v.array(v.object({ name: v.string(), ms: v.number() })),
  children: v.array(v.object({
    name: v.string(),
    pid: v.nullable(v.number()),
    restarts: v.number(),
  })),
});

export type ParentState = v.InferOutput<typeof parentStateSchema>;

type Home = Pick<Instance, "home" | "owner">;

export function writeParentState(home: Home, state: ParentState): void {
  const text = JSON.stringify(state, null, 2) + "\n";
  writeAtomic(home.home.parentState, text, home.owner);
}

/** Before a start: what the last run wrote must not be taken for this one's. */
export function forgetParentState({ home }: Pick<Instance, "home">): void {
  rmSync(home.parentState, { force: true });
}

/** What the parent wrote last, undefined where it wrote nothing. */
export function readParentState(
  { home }: Pick<Instance, "home">,
): ParentState | undefined {
  return readJson(home.parentState, parentStateSchema);
}
