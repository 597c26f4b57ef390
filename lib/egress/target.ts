// Parses the host and port of a request or a rule. A host has one form only, so that a rule
// cannot be evaded by another way to write the same host.

import { isIP } from "node:net";

export interface Target {
  /** A name in lower case without a final dot, or an address without brackets. */
  host: string;
  port: number;
}

/** Names have at most 253 characters, each label at most 63: RFC 1035, section 2.3.4. */
const maxNameLength = 253;
const label = /^(?!-)[a-z0-9_-]{1,63}(?<!-)$/;

/**
 * The one form of a host; undefined if it is not valid. Forms of IPv4 addresses such as
 * 0x7f.1 or 2130706433 become the usual one, as programs may connect to them.
 */
export function normalHost(text: string): string | undefined {
  if (!/^(\[[\da-f:.]+\]|[\w.-]+)$/i.test(text)) return undefined;
  let host: string;
  try {
    // https://url.spec.whatwg.org/#host-parsing
    host = new URL(`http://${text}/`).hostname;
  } catch {
    return undefined;
  }
  if (host.startsWith("[")) return host.slice(1, -1);
  if (isIP(host)) return host;
  const name = host.replace(/\.$/, "");
  const labels = name.split(".");
  return name.length <= maxNameLength && labels.every((one) => label.test(one))
    ? name
    : undefined;
}

/** A port from 1 to 65535; undefined for anything else. */
export function portOf(text: string): number | undefined {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  return port >= 1 && port <= 65_535 ? port : undefined;
}

const authority = /^(\[[^\]]*\]|[^:]*):([^:]*)$/;

/** The target of a CONNECT request, which is HOST:PORT. */
export function connectTarget(text: string): Target | undefined {
  const [, hostText = "", portText = ""] = authority.exec(text) ?? [];
  const host = normalHost(hostText);
  const port = portOf(portText);
  return host === undefined || port === undefined ? undefined : { host, port };
}

/** The target of another request, which is an absolute URL, and the path for its server. */
export function urlTarget(
  url: string,
): { target: Target; path: string } | undefined {
  const match = /^http:\/\/([^/?#@\\\s]+)(\/[^#\s]*|\?[^#\s]*)?$/i.exec(url);
  if (!match) return undefined;
  const [, place = "", rest = ""] = match;
  const hasPort = authority.test(place) && !/^\[[^\]]*\]$/.test(place);
  const target = connectTarget(hasPort ? place : `${place}:80`);
  const path = rest.startsWith("/") ? rest : `/${rest}`;
  return target && { target, path };
}

/** HOST:PORT, with brackets around an IPv6 address. */
export function targetText({ host, port }: Target): string {
  return `${bracketed(host)}:${port}`;
}

export function bracketed(host: string): string {
  return isIP(host) === 6 ? `[${host}]` : host;
}
