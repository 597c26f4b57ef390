// The protocol of run/pool.sock. Each request has the `version`, and its operation
// as `op`.

import * as v from "valibot";
import { relayUses } from "../relay/names.ts";
import { cacheKinds, workerNetworks } from "../instance/settings.ts";

/** Increased with each incompatible change. */
export const protocolVersion = 3;

const count = v.pipe(
  v.number(),
  v.integer(),
  v.minValue(0, "must be from 0 to 100"),
  v.maxValue(100, "must be from 0 to 100"),
);
const seconds = v.pipe(
  v.number(),
  v.integer(),
  v.minValue(1, "must be at least 1"),
);

/** Desired sizes of the pool; an omitted field stays as it is. */
export const sizesSchema = v.object({
  minWarm: v.exactOptional(count),
  maxWarm: v.exactOptional(count),
  idleTimeout: v.exactOptional(seconds),
  checkInterval: v.exactOptional(seconds),
});

export type Sizes = v.InferOutput<typeof sizesSchema>;

const claimSchema = v.object({
  op: v.literal("claim"),
  /** Identifies the claim; the same when it is sent again. */
  id: v.pipe(v.string(), v.regex(/^[0-9a-f-]{36}$/)),
  /** The prefix of the instance that the client expects. */
  instance: v.string(),
  /** Absolute path of the project, symlinks not resolved. */
  directory: v.pipe(v.string(), v.maxLength(4096)),
  /** The user's project, if the directory is a session's copy of it. */
  copyOf: v.optional(v.pipe(v.string(), v.maxLength(4096))),
  /** Undefined for a generated name. */
  name: v.optional(v.pipe(v.string(), v.maxLength(64))),
  /** Session whose Claude home the worker uses; undefined for a home of its own. */
  session: v.optional(v.pipe(v.string(), v.regex(/^[a-zA-Z][\w.-]{1,62}$/))),
  /** @default the image of the manager's settings */
  image: v.optional(v.string()),
  /** The image's id, if the client has resolved it. */
  imageId: v.optional(v.string()),
  /** Whether the worker is for a single command. */
  once: v.optional(v.boolean()),
  allowAnyPath: v.boolean(),
  /** Whether the worker may change git's hooks and configuration. */
  unguarded: v.optional(v.boolean()),
  limits: v.object({
    memoryBytes: v.number(),
    cpus: v.number(),
    /** Undefined for the image's default. */
    pids: v.optional(v.number()),
  }),
  /** @default shared */
  network: v.optional(v.picklist(workerNetworks)),
  /** @default off */
  relay: v.optional(v.picklist(relayUses)),
  /** Package caches that it shares. @default none */
  caches: v.optional(v.array(v.picklist(cacheKinds))),
  /** Whether to refuse a worker whose limits the engine cannot enforce. */
  requireLimits: v.optional(v.boolean()),
});

export type ClaimRequest = v.InferOutput<typeof claimSchema>;

export const requestSchema = v.intersect([
  v.object({
    version: v.literal(
      protocolVersion,
      `must be ${protocolVersion}: client and pool have different versions`,
    ),
  }),
  v.variant("op", [
    claimSchema,
    /** Reports a spawn that could not use the pool, for the metrics only. */
    v.object({
      op: v.literal("cold"),
      reason: v.pipe(v.string(), v.maxLength(64)),
    }),
    /** Health check. */
    v.object({ op: v.literal("ping") }),
    v.object({ op: v.literal("status") }),
    v.object({
      op: v.literal("resize"),
      sizes: sizesSchema,
      /** Kind of the warm workers; undefined keeps it. */
      network: v.exactOptional(v.picklist(workerNetworks)),
    }),
    v.object({
      op: v.literal("scale"),
      warm: v.pipe(v.number(), v.integer(), v.minValue(0)),
    }),
    v.object({ op: v.literal("warm") }),
    v.object({ op: v.literal("cleanup") }),
    v.object({ op: v.literal("drain") }),
    v.object({ op: v.literal("stop") }),
  ]),
]);

export type Request = v.InferOutput<typeof requestSchema>;

const workerSchema = v.object({
  id: v.string(),
  name: v.string(),
  project: v.string(),
  image: v.string(),
});

/** A warm worker, or the reason for a cold start. */
export const claimReplySchema = v.variant("start", [
  v.object({
    start: v.literal("warm"),
    worker: workerSchema,
    /** Limitations of the worker, for the user. */
    notices: v.optional(v.array(v.string())),
  }),
  v.object({ start: v.literal("cold"), reason: v.string() }),
]);

export type ClaimReply = v.InferOutput<typeof claimReplySchema>;

const latencySchema = v.object({
  p50: v.nullable(v.number()),
  p95: v.nullable(v.number()),
  p99: v.nullable(v.number()),
});

export const poolStatusSchema = v.object({
  running: v.boolean(),
  /** Why warm claims are impossible; null if they are possible. */
  unavailable: v.nullable(v.string()),
  warm: v.array(v.object({
    name: v.string(),
    id: v.string(),
    ageSeconds: v.number(),
  })),
  creating: v.number(),
  busy: v.array(v.object({ name: v.string(), project: v.string() })),
  minWarm: v.number(),
  maxWarm: v.number(),
  idleTimeout: v.number(),
  checkInterval: v.number(),
  /** Of the warm workers; a pool of an earlier version does not send it. */
  network: v.optional(v.picklist(workerNetworks), "shared"),
  /** Profiles with warm workers. */
  profiles: v.array(v.object({
    name: v.string(),
    image: v.string(),
    /** False if the image is not built. */
    present: v.boolean(),
    warm: v.number(),
  })),
  limits: v.object({
    memoryBytes: v.number(),
    cpus: v.number(),
    pids: v.number(),
  }),
  metrics: v.object({
    claims: v.object({
      warm: v.number(),
      cold: v.record(v.string(), v.number()),
    }),
    /** Time from a claim's request to its answer, over the last thousand claims. */
    latencyMs: latencySchema,
    creations: v.number(),
    failures: v.number(),
    lastFailure: v.nullable(v.string()),
  }),
});

export type PoolStatus = v.InferOutput<typeof poolStatusSchema>;
