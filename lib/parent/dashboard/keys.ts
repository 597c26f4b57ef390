// The keys of the dashboard's pane.

export type Action = "up" | "down" | "open" | "allow" | "deny" | "all";

const single = new Map<string, Action>([
  ["\r", "open"],
  ["y", "allow"],
  ["n", "deny"],
  ["a", "all"],
]);

/**
 * What to do for the bytes that a terminal has sent. Only arrows can come several at a
 * time: pasted text must not answer a request.
 */
export function actionsFor(keys: string): Action[] {
  const action = single.get(keys);
  if (action) return [action];
  const moves = [...keys.matchAll(arrows)];
  if (moves.map(([text]) => text).join("") !== keys) return [];
  return moves.map(([, letter]) => letter === "A" ? "up" : "down");
}

// deno-lint-ignore no-control-regex
const arrows = /\x1b[[O]([AB])/g;
