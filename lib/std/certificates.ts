// Makes certificate authorities and the certificates of servers, with the runtime's own
// cryptography. Commands that only read them do not load this.

import "reflect-metadata";
import { Buffer } from "node:buffer";
import { randomBytes, webcrypto } from "node:crypto";
import * as x509 from "@peculiar/x509";

export const dayMs = 24 * 60 * 60_000;

/** Clocks of containers and of virtual machines differ. */
const skewMs = dayMs;

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };

export interface KeyPair {
  /** PEM. */
  cert: string;
  key: string;
}

export interface Authority extends KeyPair {
  /** Milliseconds since 1970. */
  until: number;
}

/** A new authority; with `host`, one whose certificates are valid for that host alone. */
export async function newAuthority(
  { name, lifeMs, host, now }: {
    name: string;
    lifeMs: number;
    host?: string;
    now: number;
  },
): Promise<Authority> {
  const keys = await newKeys();
  const until = now + lifeMs;
  const cert = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: randomBytes(16).toString("hex"),
    name: `CN=${name} ${randomBytes(4).toString("hex")}`,
    notBefore: new Date(now - skewMs),
    notAfter: new Date(until),
    keys,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      ...(host === undefined ? [] : [onlyHost(host)]),
    ],
  });
  return {
    cert: cert.toString("pem"),
    key: await pemOf(keys.privateKey),
    until,
  };
}

/** A certificate of a server, which is valid no longer than its authority. */
export async function newLeaf(
  signer: Authority,
  { name, alternatives, lifeMs, now }: {
    name: string;
    alternatives: { type: "dns" | "ip"; value: string }[];
    lifeMs: number;
    now: number;
  },
): Promise<KeyPair> {
  const keys = await newKeys();
  const issuer = new x509.X509Certificate(signer.cert);
  const cert = await x509.X509CertificateGenerator.create({
    serialNumber: randomBytes(16).toString("hex"),
    subject: `CN=${name}`,
    issuer: issuer.subject,
    notBefore: new Date(now - skewMs),
    notAfter: new Date(Math.min(now + lifeMs, signer.until)),
    publicKey: keys.publicKey,
    signingKey: await privateKey(signer.key),
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension(alternatives),
      await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
    ],
  });
  return { cert: cert.toString("pem"), key: await pemOf(keys.privateKey) };
}

/** Permits names at and below the host, and no addresses: RFC 5280, section 4.2.1.10. */
function onlyHost(host: string): x509.Extension {
  const name = der(0x82, Buffer.from(host, "latin1"));
  const addresses = [8, 32].map((length) => der(0x87, Buffer.alloc(length)));
  const subtrees = (tag: number, bases: Buffer[]) =>
    der(tag, Buffer.concat(bases.map((base) => der(0x30, base))));
  const value = der(
    0x30,
    Buffer.concat([subtrees(0xa0, [name]), subtrees(0xa1, addresses)]),
  );
  return new x509.Extension("2.5.29.30", true, value);
}

/** A value in DER, of less than 64 KiB. */
function der(tag: number, value: Buffer): Buffer {
  const { length } = value;
  const size = length < 0x80
    ? [length]
    : length < 0x100
    ? [0x81, length]
    : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), value]);
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
