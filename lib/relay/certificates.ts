// The certificate authority of an instance, which sessions trust for the relay. Its keys
// never leave secrets/relay: the relay gets only a certificate for the API's host.

import "reflect-metadata";
import { randomBytes, webcrypto } from "node:crypto";
import * as x509 from "@peculiar/x509";
import type { Instance } from "../instance/instance.ts";
import { writeAtomic } from "../std/owned.ts";
import { type Authority, readAuthorities } from "./authority.ts";
import { apiHost } from "./names.ts";

const dayMs = 24 * 60 * 60_000;

/** A session trusts the authorities that there are when it starts. */
const authorityMs = 5 * 365 * dayMs;
/** Another is made this long before the first expires, and used in its last month. */
const successorMs = 365 * dayMs;
const handoverMs = 30 * dayMs;

/** A certificate of the relay is made anew at two thirds of its lifetime. */
const leafMs = 90 * dayMs;
export const leafRenewMs = 60 * dayMs;

/** Clocks of containers and of virtual machines differ. */
const skewMs = dayMs;

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };

export interface Leaf {
  /** PEM. */
  cert: string;
  key: string;
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
  const all = lasting ? valid : [...valid, await newAuthority(now)];
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
  const keys = await newKeys();
  const issuer = new x509.X509Certificate(signer.cert);
  const cert = await x509.X509CertificateGenerator.create({
    serialNumber: randomBytes(16).toString("hex"),
    subject: `CN=${apiHost}`,
    issuer: issuer.subject,
    notBefore: new Date(now - skewMs),
    notAfter: new Date(Math.min(now + leafMs, signer.until)),
    publicKey: keys.publicKey,
    signingKey: await privateKey(signer.key),
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension([
        { type: "dns", value: apiHost },
        { type: "ip", value: "127.0.0.1" },
      ]),
      await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
    ],
  });
  return {
    cert: cert.toString("pem"),
    key: await pemOf(keys.privateKey),
    madeAt: now,
  };
}

async function newAuthority(now: number): Promise<Authority> {
  const keys = await newKeys();
  const until = now + authorityMs;
  const cert = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: randomBytes(16).toString("hex"),
    name: `CN=HAL-9000 relay ${randomBytes(4).toString("hex")}`,
    notBefore: new Date(now - skewMs),
    notAfter: new Date(until),
    keys,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return {
    cert: cert.toString("pem"),
    key: await pemOf(keys.privateKey),
    until,
  };
}

async function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return await webcrypto.subtle.generateKey(algorithm, true, [
    "sign",
    "verify",
  ]) as webcrypto.CryptoKeyPair;
}

async function pemOf(key: webcrypto.CryptoKey): Promise<string> {
  const bytes = await webcrypto.subtle.exportKey("pkcs8", key);
  return x509.PemConverter.encode(bytes, "PRIVATE KEY");
}

async function privateKey(pem: string): Promise<webcrypto.CryptoKey> {
  const bytes = x509.PemConverter.decodeFirst(pem);
  return await webcrypto.subtle
    .importKey("pkcs8", bytes, algorithm, false, ["sign"]);
}
