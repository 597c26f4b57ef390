// What a worker reaches the relay by.

/** The host that the relay answers for; workers resolve it to their own localhost. */
export const apiHost = "api.anthropic.com";

export const relayPort = 443;

/**
 * The base URL of a session whose caller has one of its own. The CLI then behaves as with
 * any gateway: it does not take it for the Anthropic API.
 */
export const gatewayUrl = "https://127.0.0.1";

/** Begins each placeholder; the rest is random. */
const placeholderPrefix = "sk-ant-hal9000-";

export function isPlaceholder(text: string): boolean {
  return text.startsWith(placeholderPrefix);
}

export function placeholderOf(random: string): string {
  return placeholderPrefix + random;
}
