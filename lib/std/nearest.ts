// Suggestions for mistyped names.

import { closest, distance } from "fastest-levenshtein";

/** The candidate most similar to `name`; undefined if none is similar enough. */
export function nearest(
  name: string,
  candidates: readonly string[],
): string | undefined {
  if (candidates.length === 0) return undefined;
  const found = closest(name, candidates);
  // One letter instead of another is another name, not a mistyped one.
  const maxDistance = name.length < 4
    ? Math.min(1, name.length - 1)
    : Math.max(2, Math.floor(name.length / 3));
  return distance(name, found) <= maxDistance ? found : undefined;
}

/** `Did you mean "x"? `, or "" if no candidate is similar. */
export function didYouMean(
  name: string,
  candidates: readonly string[],
): string {
  const found = nearest(name, candidates);
  return found === undefined ? "" : `Did you mean "${found}"? `;
}
