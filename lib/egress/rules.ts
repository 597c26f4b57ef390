// Rules of the egress policy: "allow HOST[:PORT]" and "deny HOST[:PORT]".

import { isIP } from "node:net";
import { Failure } from "../std/errors.ts";
import { bracketed, normalHost, portOf, type Target } from "./target.ts";

export interface Rule {
  action: "allow" | "deny";
  /** A host, "*.example.com" for all names below it, or "*" for all hosts. */
  host: string;
  /** Undefined: "allow" means 80 and 443, "deny" means every port. */
  port: number | undefined;
}

/** Ports of an "allow" without a port: those of web servers. */
const webPorts = [80, 443];

/** Parses HOST[:PORT]. Throws a `usage` Failure. */
export function parseHost(text: string): Pick<Rule, "host" | "port"> {
  // A bare IPv6 address has no port.
  const whole = isIP(text) === 6 ? `[${text}]` : text;
  const match = /^(\[[^\]]*\]|[^:]*)(?::(.*))?$/.exec(whole);
  const [, hostText = "", portText] = match ?? [];
  const host = ruleHost(hostText);
  const port = portText === undefined ? undefined : portOf(portText);
  if (host === undefined || (portText !== undefined && port === undefined)) {
    throw new Failure("usage", `Not a host with an optional port: "${text}"`, {
      hint:
        "Examples: example.com, *.example.com, github.com:22, 10.0.0.5:5432, [fd00::1]:443",
    });
  }
  return { host, port };
}

function ruleHost(text: string): string | undefined {
  if (text === "*") return text;
  if (!text.startsWith("*.")) return normalHost(ascii(text));
  const below = normalHost(ascii(text.slice(2)));
  return below === undefined || isIP(below) ? undefined : `*.${below}`;
}

/** A name with other letters in the form of the DNS, such as xn--bcher-kva.example. */
function ascii(text: string): string {
  // deno-lint-ignore no-control-regex
  if (/^[\x00-\x7f]*$/.test(text) || /[\s/?#@\\%:[\]]/.test(text)) return text;
  try {
    return new URL(`http://${text}/`).hostname;
  } catch {
    return text;
  }
}

/** Parses a rule as ruleText() writes it. Throws a `usage` Failure. */
export function parseRule(text: string): Rule {
  const [action, host, ...rest] = text.split(" ");
  if ((action !== "allow" && action !== "deny") || !host || rest.length > 0) {
    throw new Failure("usage", `Not a rule: "${text}"`, {
      hint: "A rule is allow HOST[:PORT] or deny HOST[:PORT].",
    });
  }
  return { action, ...parseHost(host) };
}

export function ruleText({ action, host, port }: Rule): string {
  return `${action} ${bracketed(host)}${port === undefined ? "" : `:${port}`}`;
}

/** Whether a rule is about this target. */
export function matches(rule: Rule, { host, port }: Target): boolean {
  return isHostOf(rule.host, host) && isPortOf(rule, port);
}

function isHostOf(pattern: string, host: string): boolean {
  if (pattern === "*") return true;
  return pattern.startsWith("*.")
    // "*.example.com" is not example.com itself.
    ? host.length >= pattern.length && host.endsWith(pattern.slice(1))
    : host === pattern;
}

function isPortOf({ action, port: wanted }: Rule, port: number): boolean {
  if (wanted !== undefined) return port === wanted;
  return action === "deny" || webPorts.includes(port);
}
