// The parts of the API that a session may use with the instance's credential. It must not
// use those that create other credentials, act for the account elsewhere, or show files
// of other sessions.

import type { Grant } from "../grant.ts";

/** Used by the CLI, 2.1.296. */
const allowed: [methods: string[], path: RegExp][] = [
  [["POST"], /^\/v1\/messages(\/(count_tokens|cache_touch))?$/],
  [["GET", "HEAD"], /^\/$/],
  [["GET"], /^\/v1\/models(\/[\w.-]+)?$/],
  [["GET"], /^\/api\/(hello|web\/domain_info)$/],
  [
    ["GET"],
    /^\/api\/oauth\/(profile|usage|validate|account\/settings|claude_cli\/roles)$/,
  ],
  [["GET"], /^\/api\/claude_cli\/bootstrap$/],
  [
    ["GET"],
    /^\/api\/claude_code\/(settings|skills|policy_limits|notification\/preferences|organizations\/metrics_enabled)$/,
  ],
  [["POST"], /^\/api\/(event_logging\/v2\/batch|claude_code\/metrics)$/],
];

/** Whether a session may request a path, without its query. */
export function mayUse(
  { kind, baseUrl, headers }: Grant,
  method: string,
  path: string,
): boolean {
  // What the worker itself has may be used for all, such as the login that makes a key.
  const isOwn = kind === "own" && baseUrl === null && headers.length === 0;
  return isOwn ? path.startsWith("/") : isAllowed(method, path);
}

function isAllowed(method: string, path: string): boolean {
  // Servers may resolve these.
  if (/(^|\/)\.{1,2}(\/|$)/.test(path)) return false;
  return allowed.some(([methods, form]) =>
    methods.includes(method) && form.test(path)
  );
}
