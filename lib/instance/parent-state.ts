// The state that the parent writes to run/parent.json.

import { rmSync, statSync } from "node:fs";
import * as v from "valibot";
import type { Instance } from "./instance.ts";
import { writeAtomic } from "../std/owned.ts";
import { readJson } from "../std/json.ts";
import { workerNetworks } from "./settings.ts";

const parentStateSchema = v.object({
  version: v.literal(1),
  /** Id of the parent's container. */
  container: v.string(),
  /** Digest of its sources, see build-digest.ts. */
  build: v.optional(v.string()),
  /** Its WORKER_NETWORK. */
  network: v.optional(v.picklist(workerNetworks)),
  /** Whether the parent is ready; ChromaDB may still be starting. */
  ready: v.boolean(),
  /** How long the start took. */
  readyMs: v.nullable(v.number()),
  /** Why workers cannot use ChromaDB; null if they can. */
  chromadbFault: v.nullable(v.string()),
  /** Why services cannot be opened to workers; null if they can. */
  servicesFault: v.optional(v.nullable(v.string())),
  /** The services' ports that are open in the shared network, and those that are taken. */
  shared: v.optional(v.object({
    open: v.array(v.number()),
    taken: v.array(v.number()),
  })),
  /** Whether an ephemeral port is left in the shared network. */
  portsLeft: v.optional(v.boolean()),
  /** Workers that use too much disk space, as last measured: see worker/disk-use.ts. */
  overDisk: v.optional(v.array(v.object({
    name: v.string(),
    containerBytes: v.nullable(v.number()),
    homeBytes: v.nullable(v.number()),
  }))),
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

/** Call before a start, so that the last run's state is not mistaken for the new one's. */
export function forgetParentState({ home }: Pick<Instance, "home">): void {
  rmSync(home.parentState, { force: true });
}

/** The uid that the parent's state belongs to, if that is another than its home's owner. */
export function foreignStateOwner(
  { home, owner }: Home,
): number | undefined {
  const uid = statSync(home.parentState, { throwIfNoEntry: false })?.uid;
  return uid === owner.uid ? undefined : uid;
}

/** The parent's last state; undefined if there is none. */
export function readParentState(
  { home }: Pick<Instance, "home">,
): ParentState | undefined {
  return readJson(home.parentState, parentStateSchema);
}
