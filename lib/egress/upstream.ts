// The user's own proxy: the host's HTTPS_PROXY, HTTP_PROXY and NO_PROXY when the parent was
// started, and the host's addresses. It may contain a password, so it is a file that only
// the owner can read, and reaches the egress proxy through its stdin.

import { BlockList, isIP } from "node:net";
import { networkInterfaces } from "node:os";
import * as v from "valibot";
import type { Instance } from "../instance/instance.ts";
import { readJson } from "../std/json.ts";
import { isLocalUrl } from "../std/local-url.ts";
import type { Log } from "../std/log.ts";
import { writeAtomic } from "../std/owned.ts";
import { plainText } from "../std/plain-file.ts";
import type { Target } from "./target.ts";

const proxyUrl = v.nullable(v.pipe(v.string(), v.maxLength(4096), v.url()));

export const upstreamSchema = v.object({
  http: proxyUrl,
  https: proxyUrl,
  noProxy: v.string(),
  /** Certificates that the host trusts in addition, as PEM. */
  ca: v.nullable(v.string()),
});

export type Upstream = v.InferOutput<typeof upstreamSchema>;

const fileSchema = v.object({
  version: v.literal(1),
  upstream: upstreamSchema,
  addresses: v.array(v.string()),
});

export type HostNetwork = Omit<v.InferOutput<typeof fileSchema>, "version">;

/** A host without a proxy. */
export const directNetwork: HostNetwork = {
  upstream: { http: null, https: null, noProxy: "", ca: null },
  addresses: [],
};

const maxCaBytes = 1024 ** 2;

/** On the host: what programs of this environment use. Reports what cannot be used. */
export function hostNetwork(env: NodeJS.ProcessEnv, log: Log): HostNetwork {
  const proxyOf = (...names: string[]) => {
    const name = names.flatMap((one) => [one.toLowerCase(), one])
      .find((one) => env[one]);
    const text = name && env[name];
    if (!name || !text) return null;
    const url = /^\w+:\/\//.test(text) ? text : `http://${text}`;
    // Without the value, which may contain a password.
    if (!URL.canParse(url) || !/^https?:/i.test(url)) {
      log(
        `warning: ${name} is not used for isolated workers: not a URL of http or https`,
      );
      return null;
    }
    if (isLocalUrl(url)) {
      log(
        `warning: ${name} is on this machine's localhost, which isolated workers' egress proxy cannot reach`,
      );
    }
    return new URL(url).href;
  };
  const ca = env["NODE_EXTRA_CA_CERTS"];
  return {
    upstream: {
      http: proxyOf("HTTP_PROXY", "ALL_PROXY"),
      https: proxyOf("HTTPS_PROXY", "ALL_PROXY"),
      noProxy: env["no_proxy"] ?? env["NO_PROXY"] ?? "",
      ca: ca
        ? plainText(ca, { maxBytes: maxCaBytes, followLinks: true }) ?? null
        : null,
    },
    addresses: Object.values(networkInterfaces()).flatMap((all) => all ?? [])
      .map(({ address }) => address),
  };
}

export function writeHostNetwork(
  { home, owner }: Pick<Instance, "home" | "owner">,
  network: HostNetwork,
): void {
  const text = JSON.stringify({ version: 1, ...network });
  writeAtomic(home.egressHost, `${text}\n`, owner);
}

/** Undefined if it is missing or cannot be read. */
export function readHostNetwork(
  { home }: Pick<Instance, "home">,
): HostNetwork | undefined {
  return readJson(home.egressHost, fileSchema, 4 * maxCaBytes);
}

/** The proxy for a target; undefined if it is to be reached directly. */
export function upstreamFor(
  { http, https, noProxy }: Upstream,
  target: Target,
  isTunnel: boolean,
): URL | undefined {
  const url = isTunnel ? https : http;
  return url === null || isBypassed(noProxy, target) ? undefined : new URL(url);
}

/** Whether NO_PROXY names the target, by the rules that curl and Go have in common. */
export function isBypassed(noProxy: string, { host, port }: Target): boolean {
  return noProxy.split(/[\s,]+/).filter(Boolean).some((entry) => {
    if (entry === "*") return true;
    const subnet = /^([^/]+)\/(\d+)$/.exec(entry);
    if (subnet) return isWithin(host, subnet[1] ?? "", Number(subnet[2]));
    const [, name = "", portText] = /^(.*?)(?::(\d+))?$/.exec(
      isIP(entry) === 6 ? `[${entry}]` : entry,
    ) ?? [];
    if (portText !== undefined && Number(portText) !== port) return false;
    const bare = name.replace(/^\[|\]$/g, "").replace(/^\*?\./, "")
      .toLowerCase();
    return host === bare || (isIP(host) === 0 && host.endsWith(`.${bare}`));
  });
}

function isWithin(host: string, network: string, bits: number): boolean {
  const family = isIP(host);
  if (family === 0 || isIP(network) !== family) return false;
  if (bits > (family === 4 ? 32 : 128)) return false;
  const type = family === 4 ? "ipv4" : "ipv6";
  const list = new BlockList();
  list.addSubnet(network, bits, type);
  return list.check(host, type);
}
