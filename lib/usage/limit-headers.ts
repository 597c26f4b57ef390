// What replies of the API say about the limits of the account.
// https://docs.anthropic.com/en/api/rate-limits
// The unified headers of subscriptions are not documented: those that the CLI reads.

export type Headers = Record<string, string | string[] | undefined>;

export interface Reached {
  /** When it resets, in milliseconds since 1970. */
  resetsAt: number;
  /** Which limit, such as five_hour; "" if it is not named. */
  claim: string;
}

export interface Window {
  /** Such as 5h. */
  name: string;
  /** Percent of it that is used. */
  percent: number;
  /** When it resets, in milliseconds since 1970; null if that is not known. */
  resetsAt: number | null;
}

export function headerOf(headers: Headers, name: string): string {
  const value = headers[name];
  return (Array.isArray(value) ? value[0] : value) ?? "";
}

const prefix = "anthropic-ratelimit-";

/** If a reply does not say when. */
const defaultResetMs = 60_000;

/** Longer than any window, so that a wrong header does not stop sessions for good. */
const maxResetMs = 8 * 24 * 3600 * 1000;

/** The limit that a reply reports as reached. */
export function limitIn(
  status: number,
  headers: Headers,
  now: number,
): Reached | undefined {
  if (status !== 429) return undefined;
  const unified = headerOf(headers, `${prefix}unified-status`);
  const found = unified === "rejected"
    ? timeOf(headerOf(headers, `${prefix}unified-reset`))
    : undefined;
  const resetsAt = found ??
    retryTime(headerOf(headers, "retry-after"), now) ??
    emptyReset(headers) ?? now + defaultResetMs;
  return {
    resetsAt: Math.min(Math.max(resetsAt, now), now + maxResetMs),
    claim: wordOf(headerOf(headers, `${prefix}unified-representative-claim`)),
  };
}

/** How much of the account's windows is used. */
export function windowsIn(headers: Headers): Window[] {
  return Object.keys(headers).flatMap((name) => {
    const [, window] =
      /^anthropic-ratelimit-unified-([\w-]{1,20})-utilization$/.exec(name) ??
        [];
    const share = Number(headerOf(headers, name));
    if (!window || !(share >= 0 && share <= 100)) return [];
    return [{
      name: window,
      percent: Math.round(share * 100),
      resetsAt: timeOf(headerOf(headers, `${prefix}unified-${window}-reset`)) ??
        null,
    }];
  }).sort((a, b) => a.name < b.name ? -1 : 1).slice(0, 10);
}

/** The latest reset of what has nothing left. */
function emptyReset(headers: Headers): number | undefined {
  const resets = Object.keys(headers).flatMap((name) => {
    const [, what] = /^anthropic-ratelimit-(.{1,30})-remaining$/.exec(name) ??
      [];
    if (!what || headerOf(headers, name) !== "0") return [];
    return timeOf(headerOf(headers, `${prefix}${what}-reset`)) ?? [];
  });
  return resets.length === 0 ? undefined : Math.max(...resets);
}

/** Seconds since 1970, or a time of RFC 3339. */
function timeOf(text: string): number | undefined {
  const at = /^\d{9,11}$/.test(text) ? Number(text) * 1000 : Date.parse(text);
  return text === "" || Number.isNaN(at) ? undefined : at;
}

/** Seconds from now, or a time. */
function retryTime(text: string, now: number): number | undefined {
  if (/^\d{1,7}(\.\d+)?$/.test(text)) return now + Number(text) * 1000;
  return text === "" ? undefined : timeOf(text);
}

function wordOf(text: string): string {
  return /^[a-z0-9_]{1,40}$/.test(text) ? text : "";
}
