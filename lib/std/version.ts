// Compares versions, and finds what is new between two of them in a changelog.

/** The numbers of a version; undefined if it is not X.Y.Z. */
function numbersOf(version: string): number[] | undefined {
  const [, ...numbers] = /^(\d+)\.(\d+)\.(\d+)$/.exec(version) ?? [];
  return numbers.length === 3 ? numbers.map(Number) : undefined;
}

/** Negative if `a` is older than `b`; undefined if one of them is not X.Y.Z. */
export function compareVersions(a: string, b: string): number | undefined {
  const [left, right] = [numbersOf(a), numbersOf(b)];
  if (!left || !right) return undefined;
  const differs = left.findIndex((number, at) => number !== right[at]);
  return (left[differs] ?? 0) - (right[differs] ?? 0);
}

/**
 * The sections of a changelog (https://keepachangelog.com) for versions after `from` up
 * to `to`, without unreleased changes.
 */
export function changesBetween(
  changelog: string,
  from: string,
  to: string,
): string {
  const sections = changelog.split(/^(?=## )/m).filter((section) => {
    const [, version = ""] = /^## \[?(\d+\.\d+\.\d+)/.exec(section) ?? [];
    return (compareVersions(version, from) ?? 0) > 0 &&
      (compareVersions(version, to) ?? 1) <= 0;
  });
  return sections.map((section) => section.trim()).join("\n\n");
}
