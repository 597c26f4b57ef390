// What somebody may have meant who mistyped a name.

import { closest, distance } from "fastest-levenshtein";

/** The candidate nearest to `name`, undefined where none is near. */
export function nearest(
  name: string,
  candidates: readonly string[],
): string | undefined {
  if (candidates.length === 0) return undefined;
  const found = closest(name, candidates);
  const slips = Math.max(2, Math.floor(name.length / 3));
  return distance(name, found) <= slips ? found : undefined;
}

/** `Did you mean "x"? ` where there is such an x, else nothing. */
export function didYouMean(
  name: string,
  candidates: readonly string[],
): string {
  const found = nearest(name, candidates);
  return found === undefined ? "" : `Did you mean "${found}"? `;
}
