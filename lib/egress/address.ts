// Which addresses a worker may reach: public ones. The others lead to the host, its
// network, or a cloud's metadata.
// https://www.iana.org/assignments/iana-ipv4-special-registry
// https://www.iana.org/assignments/iana-ipv6-special-registry

import { BlockList, isIP } from "node:net";

/** Why an address is not public. */
export interface NotPublic {
  /** Completes the sentence "10.0.0.1 is ...". */
  what: string;
  /** Whether a rule for the address can allow it. */
  allowable: boolean;
}

type Subnets = [what: string, allowable: boolean, ...subnets: string[]];

const subnets: Subnets[] = [
  // Besides 169.254.169.254: Azure, Alibaba, Oracle, AWS and Google.
  [
    "an address at which clouds serve credentials",
    false,
    "168.63.129.16/32",
    "100.100.100.200/32",
    "192.0.0.192/32",
    "fd00:ec2::254/128",
    "fd20:ce::254/128",
  ],
  ["a loopback address", false, "127.0.0.0/8", "::1/128"],
  ["an unspecified address", false, "0.0.0.0/8", "::/128"],
  ["a link-local address", false, "169.254.0.0/16", "fe80::/10"],
  ["a multicast address", false, "224.0.0.0/4", "ff00::/8"],
  [
    "a private address",
    true,
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "fc00::/7",
  ],
  ["an address of a provider's network", true, "100.64.0.0/10"],
  [
    "a reserved address",
    false,
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "240.0.0.0/4",
    "2001::/23",
    "2001:db8::/32",
    "3fff::/20",
  ],
];

const lists = subnets.map(([what, allowable, ...texts]) => ({
  kind: { what, allowable } satisfies NotPublic,
  list: listOf(texts),
}));

/**
 * Why no rule can allow a host, as notPublic() says it; undefined if one can. `host` is in
 * the one form of target.ts.
 */
export function unallowable(host: string): string | undefined {
  const address = isLocalhost(host) ? "127.0.0.1" : host;
  const fault = isIP(address) ? notPublic(address) : undefined;
  return fault && !fault.allowable ? fault.what : undefined;
}

/** Names of the loopback addresses: https://www.rfc-editor.org/rfc/rfc6761#section-6.3 */
export function isLocalhost(host: string): boolean {
  return host === "localhost" || host.endsWith(".localhost");
}

/** All public IPv6 addresses, which may become fewer but not more. */
const globalUnicast = listOf(["2000::/3"]);

/** Addresses of the machines that the proxy runs on. */
export interface OwnAddresses {
  host: readonly string[];
  /** Of the proxy's own network namespace. */
  parent: readonly string[];
}

/**
 * Why an address is not public; undefined if it is.
 * IPv6 addresses that contain an IPv4 address are judged by that one.
 */
export function notPublic(
  address: string,
  own: OwnAddresses = { host: [], parent: [] },
): NotPublic | undefined {
  // An address with a zone depends on the interface.
  const family = address.includes("%") ? 0 : isIP(address);
  if (family === 0) return { what: "not an address", allowable: false };
  const embedded = family === 6 ? embeddedIpv4(address) : undefined;
  if (embedded !== undefined) return notPublic(embedded, own);
  const type = family === 4 ? "ipv4" : "ipv6";
  const isOf = (all: readonly string[]) =>
    all.some((one) => isSame(one, address));
  const kind = lists.find(({ list }) => list.check(address, type))?.kind;
  if (kind && !kind.allowable) return kind;
  if (isOf(own.parent)) {
    return { what: "an address of the parent", allowable: false };
  }
  if (kind) return kind;
  if (family === 6 && !globalUnicast.check(address, type)) {
    return { what: "a reserved address", allowable: false };
  }
  return isOf(own.host)
    ? { what: "an address of the host", allowable: true }
    : undefined;
}

/** Prefixes of IPv6 addresses that contain an IPv4 address, and where it begins. */
const embeddings: [list: BlockList, group: number][] = [
  [listOf(["::ffff:0:0/96"]), 6], // mapped
  [listOf(["::ffff:0:0:0/96"]), 6], // translated, RFC 7915
  [listOf(["64:ff9b::/96"]), 6], // NAT64, RFC 6052
  [listOf(["2002::/16"]), 1], // 6to4, RFC 3056
];

function embeddedIpv4(address: string): string | undefined {
  const [, at] = embeddings.find(([list]) => list.check(address, "ipv6")) ?? [];
  if (at === undefined) return undefined;
  const groups = groupsOf(address);
  return [groups[at] ?? 0, groups[at + 1] ?? 0]
    .flatMap((group) => [group >> 8, group & 255]).join(".");
}

/** The eight numbers of an IPv6 address. */
function groupsOf(address: string): number[] {
  // The URL's form has no dotted part.
  const text = new URL(`http://[${address}]/`).hostname.slice(1, -1);
  const [head = "", tail] = text.split("::");
  const numbers = (part: string) =>
    part === "" ? [] : part.split(":").map((group) => parseInt(group, 16));
  const [first, last] = [numbers(head), numbers(tail ?? "")];
  return [...first, ...Array(8 - first.length - last.length).fill(0), ...last];
}

function isSame(one: string, other: string): boolean {
  return isIP(one) !== 0 && isIP(one) === isIP(other) &&
    canonical(one) === canonical(other);
}

/** The one form of an address. */
function canonical(address: string): string {
  return isIP(address) === 6 ? groupsOf(address).join(":") : address;
}

function listOf(texts: string[]): BlockList {
  const list = new BlockList();
  for (const text of texts) {
    const [network = "", bits] = text.split("/");
    const type = network.includes(":") ? "ipv6" : "ipv4";
    list.addSubnet(network, Number(bits), type);
  }
  return list;
}
