// What a worker reaches the relay by.

/** The host that the relay answers for; workers resolve it to their own localhost. */
export const apiHost = "api.anthropic.com";

export const relayPort = 443;

/**
 * How Claude in a worker reaches the API: `on` by the relay, `off` directly, with the
 * instance's login in the worker, `any` directly, without that login. Then a worker that
 * was made for the relay will do, too.
 */
export const relayUses = ["on", "off", "any"] as const;

export type RelayUse = typeof relayUses[number];

/** Programs in a worker without a session have credentials of their own, if any. */
export function relayUseOf(
  setting: "on" | "off",
  { standalone, session, relay }: {
    standalone?: boolean | undefined;
    session?: string | undefined;
    relay?: RelayUse | undefined;
  },
): RelayUse {
  if (standalone || setting === "off") return "off";
  return relay ?? (session === undefined ? "any" : "on");
}

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
