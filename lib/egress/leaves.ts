// In the parent: certificates for the hosts of secrets. The keys of their authorities stay here.

import { dayMs, type KeyPair, newLeaf } from "../std/certificates.ts";
import type { HostSecret } from "./host-secrets.ts";

/** Made anew at two thirds of its lifetime. */
const leafMs = 90 * dayMs;
const renewMs = 60 * dayMs;

export class Leaves {
  /** By the certificates of their authorities. */
  readonly #made = new Map<string, KeyPair & { at: number }>();

  /** Makes those that are missing or old. Leaves out a secret whose authority is not valid. */
  async make(
    secrets: readonly HostSecret[],
    now = Date.now(),
  ): Promise<ReadonlyMap<string, KeyPair>> {
    for (const { host, authority } of secrets) {
      const { cert, until } = authority;
      const known = this.#made.get(cert);
      if (known && now - known.at < renewMs || until < now) continue;
      try {
        const leaf = await newLeaf(authority, {
          name: "HAL-9000 egress proxy",
          alternatives: [{ type: "dns", value: host }],
          lifeMs: leafMs,
          now,
        });
        this.#made.set(cert, { ...leaf, at: now });
      } catch {
        this.#made.delete(cert); // the file was changed by hand
      }
    }
    const used = new Set(secrets.map(({ authority }) => authority.cert));
    for (const cert of this.#made.keys()) {
      if (!used.has(cert)) this.#made.delete(cert);
    }
    return this.#made;
  }
}
