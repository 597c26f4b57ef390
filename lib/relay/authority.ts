// Reads the certificate authorities of the relay. A file of its own: commands need only
// the certificates, and not the library that makes them.

import * as v from "valibot";
import type { HomePaths } from "../instance/paths.ts";
import { readJson } from "../std/json.ts";

const authoritySchema = v.object({
  /** PEM. */
  cert: v.string(),
  key: v.string(),
  /** Milliseconds since 1970. */
  until: v.number(),
});

export type Authority = v.InferOutput<typeof authoritySchema>;

const fileSchema = v.object({
  version: v.literal(1),
  authorities: v.array(authoritySchema),
});

/** Oldest first; empty if there is none. */
export function readAuthorities(
  { relayAuthorities }: Pick<HomePaths, "relayAuthorities">,
): Authority[] {
  return readJson(relayAuthorities, fileSchema)?.authorities ?? [];
}
