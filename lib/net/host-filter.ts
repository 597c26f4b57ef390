// Keeps workers from the host: a packet filter in their namespace refuses connections
// to the bridge that they share with the host, and to link-local and metadata
// addresses. Not routes, which a worker bypasses with SO_BINDTODEVICE: see ADR 32.

import { readFileSync, writeFileSync } from "node:fs";
import { messageOf } from "../std/errors.ts";
import { runProgram } from "../std/program.ts";

/** What the engine has configured in a network namespace. */
export interface Network {
  /** Networks on its interfaces, and its gateways. */
  near: string[];
  nameservers: string[];
}

/** Files of the namespace; replaced in tests. */
export interface NetworkFiles {
  route: string;
  ipv6Route: string;
  resolvConf: string;
}

const table = "inet hal9000";

/** In /tmp of the net container, which only it can read. */
const listingFile = "/tmp/host-filter";
const faultFile = "/tmp/host-filter-fault";

/**
 * Link-local addresses, multicast and broadcast, and the addresses at which clouds
 * serve credentials elsewhere: Azure, Alibaba, Oracle; AWS and Google with IPv6.
 */
const refusedIpv4 =
  "169.254.0.0/16, 224.0.0.0/4, 255.255.255.255, 168.63.129.16, 100.100.100.200, 192.0.0.192";
const refusedIpv6 = "fe80::/10, ff00::/8, fd00:ec2::254, fd20:ce::254";

/** Sent by the kernel itself; IPv6 does not work without them. */
const discovery =
  "nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-report, mld2-listener-report";

/**
 * The filter's rules. Answers to connections from the bridge pass, since published ports
 * are reached from there. So do names that are asked of the engine's name servers.
 */
export function filterRules({ near, nameservers }: Network): string {
  const to = (address: string) =>
    `${address.includes(":") ? "ip6" : "ip"} daddr ${address}`;
  const lines = [
    "type filter hook output priority filter; policy accept;",
    'oifname "lo" accept',
    `icmpv6 type { ${discovery} } accept`,
    ...nameservers.map((address) =>
      `${to(address)} meta l4proto { tcp, udp } th dport 53 accept`
    ),
    ...near.flatMap((network) => [
      `${to(network)} tcp flags & (syn | ack) == syn reject`,
      `${to(network)} meta l4proto != tcp reject`,
    ]),
    `ip daddr { ${refusedIpv4} } reject`,
    `ip6 daddr { ${refusedIpv6} } reject`,
  ];
  return [
    // Replaces a table that is already there.
    `table ${table} {}`,
    `delete table ${table}`,
    `table ${table} {`,
    "  chain output {",
    ...lines.map((line) => `    ${line}`),
    "  }",
    "}",
    "",
  ].join("\n");
}

/** Reads the network of a namespace from its files in /proc and /etc. */
export function networkOf(
  { route, ipv6Route, resolvConf }: NetworkFiles,
): Network {
  const near = [...nearIpv4(route), ...nearIpv6(ipv6Route)];
  const nameservers = resolvConf.split("\n").flatMap((line) => {
    const [, address] = /^\s*nameserver\s+([0-9a-fA-F.:]+)\s*$/.exec(line) ??
      [];
    return address === undefined || address.startsWith("127.") ? [] : [address];
  });
  return { near: [...new Set(near)], nameservers: [...new Set(nameservers)] };
}

/** https://www.kernel.org/doc/html/latest/networking/proc_net_route.html */
function nearIpv4(route: string): string[] {
  return route.split("\n").slice(1).flatMap((line) => {
    const columns = line.trim().split(/\s+/);
    const [device, destination = "", gateway = "", , , , , mask = ""] = columns;
    if (!/^[0-9A-F]{8}$/i.test(destination) || device === "lo") return [];
    const bits = [...parseInt(mask, 16).toString(2)]
      .filter((bit) => bit === "1").length;
    if (gateway !== "00000000") return [ipv4(gateway)];
    return bits === 0 ? [] : [`${ipv4(destination)}/${bits}`];
  });
}

/** An address in the byte order of a little-endian machine. */
function ipv4(hex: string): string {
  return [6, 4, 2, 0].map((at) => parseInt(hex.slice(at, at + 2), 16)).join(
    ".",
  );
}

const noAddress = "0".repeat(32);

function nearIpv6(ipv6Route: string): string[] {
  return ipv6Route.split("\n").flatMap((line) => {
    const columns = line.trim().split(/\s+/);
    const [destination = "", length = "", , , gateway = ""] = columns;
    if (!/^[0-9a-f]{32}$/.test(destination) || columns.at(-1) === "lo") {
      return [];
    }
    if (/^(fe[89ab]|ff)/.test(destination)) return []; // refused in any case
    if (gateway !== noAddress) return [ipv6(gateway)];
    const bits = parseInt(length, 16);
    return bits === 0 ? [] : [`${ipv6(destination)}/${bits}`];
  });
}

function ipv6(hex: string): string {
  return (hex.match(/.{4}/g) ?? []).join(":");
}

/** Sets the filter, and keeps why it could not for lookAtFilter(). */
export async function setFilter(): Promise<string | undefined> {
  try {
    const rules = filterRules(networkOf({
      route: readFileSync("/proc/net/route", "utf8"),
      ipv6Route: ifPresent("/proc/net/ipv6_route"),
      resolvConf: ifPresent("/etc/resolv.conf"),
    }));
    await nft(["-f", "-"], rules);
    writeFileSync(listingFile, await listing());
    return undefined;
  } catch (error) {
    writeFileSync(faultFile, messageOf(error));
    return messageOf(error);
  }
}

/** Why the filter does not hold; undefined if it does. Needs NET_ADMIN. */
export async function lookAtFilter(): Promise<string | undefined> {
  const fault = ifPresent(faultFile);
  if (fault !== "") return fault;
  const wanted = ifPresent(listingFile);
  if (wanted === "") return "it was not set";
  const present = await listing().catch(messageOf);
  return present === wanted ? undefined : `it was changed: ${present}`;
}

async function listing(): Promise<string> {
  return await nft(["list", "table", ...table.split(" ")]);
}

async function nft(args: string[], input = ""): Promise<string> {
  const { exitCode, stdout, stderr } = await runProgram(["nft", ...args], {
    input,
    timeoutMs: 10_000,
  });
  if (exitCode === 0) return stdout;
  throw new Error(`nft failed: ${stderr.trim().split("\n")[0] ?? ""}`);
}

/** A kernel without IPv6 has no routes of it. */
function ifPresent(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
