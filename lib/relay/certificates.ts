// The certificate authority of an instance, which sessions trust for the relay. Its keys
// never leave secrets/relay: the relay gets only a certificate for the API's host.

import type { Instance } from "../instance/instance.ts";
import {
  dayMs,
  type KeyPair,
  newAuthority,
  newLeaf as signedLeaf,
} from "../std/certificates.ts";
import { writeAtomic } from "../std/owned.ts";
import { type Authority, readAuthorities } from "./authority.ts";
import { apiHost } from "./names.ts";

/** A session trusts the authorities that there are when it starts. */
const authorityMs = 5 * 365 * dayMs;
/** Another is made this long before the first expires, and used in its last month. */
const successorMs = 365 * dayMs;
const handoverMs = 30 * dayMs;

/** A certificate of the relay is made anew at two thirds of its lifetime. */
const leafMs = 90 * dayMs;
export const leafRenewMs = 60 * dayMs;

export interface Leaf extends KeyPair {
  /** Milliseconds since 1970. */
  madeAt: number;
}

/** In the parent: creates the authority, or its successor, if it is time. */
export async function ensureAuthority(
  instance: Pick<Instance, "home" | "owner">,
  now = Date.now(),
): Promise<void> {
  const known = readAuthorities(instance.home);
  const valid = known.filter(({ until }) => until > now);
  const lasting = valid.some(({ until }) => until > now + successorMs);
  if (lasting && valid.length === known.length) return;
  const name = "HAL-9000 relay";
  const all = lasting
    ? valid
    : [...valid, await newAuthority({ name, lifeMs: authorityMs, now })];
  const text = JSON.stringify({ version: 1, authorities: all });
  writeAtomic(instance.home.relayAuthorities, text, instance.owner);
}

/** Signed by the oldest authority that is not about to expire: most sessions trust it. */
export async function newLeaf(
  authorities: Authority[],
  now = Date.now(),
): Promise<Leaf> {
  const [signer] = authorities.filter(({ until }) => until > now + handoverMs);
  if (!signer) throw new Error("the relay has no valid authority");
  const leaf = await signedLeaf(signer, {
    name: apiHost,
    alternatives: [
      { type: "dns", value: apiHost },
      { type: "ip", value: "127.0.0.1" },
    ],
    lifeMs: leafMs,
    now,
  });
  return { ...leaf, madeAt: now };
}
