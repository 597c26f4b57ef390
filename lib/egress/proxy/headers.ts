// The headers that a proxy passes on.

/** RFC 9110, section 7.6.1, and the proxy's own. The proxy sets Host and Connection. */
const hopByHop = [
  "connection",
  "host",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "upgrade",
];

/** Names and values in turn, without those that are for this connection only. */
export function forwardedHeaders(raw: readonly string[]): string[] {
  const pairs: [string, string][] = [];
  for (let at = 0; at + 1 < raw.length; at += 2) {
    pairs.push([raw[at] ?? "", raw[at + 1] ?? ""]);
  }
  const named = pairs.filter(([name]) => name.toLowerCase() === "connection")
    .flatMap(([, value]) => value.toLowerCase().split(","))
    .map((name) => name.trim())
    // A client must not remove the framing of its own body.
    .filter((name) => !["content-length", "transfer-encoding"].includes(name));
  const left = new Set([...hopByHop, ...named]);
  return pairs.filter(([name]) => !left.has(name.toLowerCase())).flat();
}
