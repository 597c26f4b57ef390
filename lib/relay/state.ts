// What the relay has to know. It cannot read HAL9000_HOME: the parent writes this to its
// stdin, whole, whenever it has changed.

import * as v from "valibot";
import { grantSchema } from "./grant.ts";

const clientSchema = v.object({
  worker: v.string(),
  session: v.nullable(v.string()),
  project: v.string(),
  /** Its Claude home. */
  home: v.string(),
});

export type Client = v.InferOutput<typeof clientSchema>;

export const stateSchema = v.object({
  /** The certificate that it shows to workers, as PEM. */
  leaf: v.object({ cert: v.string(), key: v.string() }),
  /** The instance's credentials. */
  credentials: v.object({
    key: v.nullable(v.string()),
    token: v.nullable(v.string()),
    /** The login's access token. */
    login: v.nullable(v.string()),
  }),
  /** By the container's id. */
  workers: v.record(v.string(), clientSchema),
  /** Of the sessions that have a worker, by their Claude homes. */
  grants: v.record(v.string(), grantSchema),
  /** For the meter, see usage/meter.ts. */
  usage: v.optional(v.unknown()),
});

export type State = v.InferOutput<typeof stateSchema>;

/** What the relay writes to its stdout, a line of JSON each. */
export const reportSchema = v.variant("kind", [
  v.object({ kind: v.literal("entry"), entry: v.unknown() }),
  v.object({ kind: v.literal("usage"), event: v.unknown() }),
  /** The API has refused the login's access token. */
  v.object({ kind: v.literal("rejected"), digest: v.string() }),
]);

export type Report = v.InferOutput<typeof reportSchema>;
