// What is said over run/pool.sock. Each line has the version, and what it asks
// for as `op`.

import * as v from "valibot";

/** Another number for whatever an older side would misread. */
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

/** How large the pool is to be; a field that is left out stays as it is. */
export const sizesSchema = v.object({
  minWarm: v.exactOptional(count),
  maxWarm: v.exactOptional(count),
  idleTimeout: v.exactOptional(seconds),
  checkInterval: v.exactOptional(seconds),
});

export type Sizes = v.InferOutput<typeof sizesSchema>;

const claimSchema = v.object({
  op: v.literal("claim"),
  /** The same for the same claim, however often it is sent. */
  id: v.pipe(v.string(), v.regex(/^[0-9a-f-]{36}$/)),
  /** The prefix: whose pool the claimer takes this for. */
  instance: v.string(),
  /** Absolute path of the project, links not yet followed. */
  directory: v.pipe(v.string(), v.maxLength(4096)),
  /** Undefined for a made-up one. */
  name: v.optional(v.pipe(v.string(), v.maxLength(64))),
  /** Whose Claude home the worker gets; undefined for one of its own. */
  session: v.optional(v.pipe(v.string(), v.regex(/^[a-zA-Z][\w.-]{1,62}$/))),
  image: v.string(),
  /** What has that name, where the claimer has looked. */
  imageId: v.optional(v.string()),
  /** Whether it is for one command. */
  once: v.optional(v.boolean()),
  allowAnyPath: v.boolean(),
  limits: v.object({
    memoryBytes: v.number(),
    cpus: v.number(),
    pids: v.number(),
  }),
});

export type ClaimRequest = v.InferOutput<typeof claimSchema>;

export const requestSchema = v.intersect([
  v.object({
    version: v.literal(
      protocolVersion,
      `must be ${protocolVersion}: client and pool are of two versions`,
    ),
  }),
  v.variant("op", [
    claimSchema,
    /** A spawn that could not be a claim, told for the figures alone. */
    v.object({
      op: v.literal("cold"),
      reason: v.pipe(v.string(), v.maxLength(64)),
    }),
    /** Answered at once by a manager that lives. */
    v.object({ op: v.literal("ping") }),
    v.object({ op: v.literal("status") }),
    v.object({ op: v.literal("resize"), sizes: sizesSchema }),
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

/** A worker, or why it has to be a cold one. */
export const claimReplySchema = v.variant("start", [
  v.object({
    start: v.literal("warm"),
    worker: workerSchema,
    /** What will not work in it: lines for a person. */
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
  /** Why claims are not possible here; null where they are. */
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
  /** What is kept warm. */
  profiles: v.array(v.object({
    name: v.string(),
    image: v.string(),
    /** False where that image is not built. */
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
    /** Milliseconds from a claim's line to its answer, of the last thousand. */
    latencyMs: latencySchema,
    creations: v.number(),
    failures: v.number(),
    lastFailure: v.nullable(v.string()),
  }),
});

export type PoolStatus = v.InferOutput<typeof poolStatusSchema>;
