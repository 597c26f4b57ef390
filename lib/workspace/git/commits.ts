// Which commits a repository has.

import { git, type Place, withoutCaches } from "./git.ts";

/** Those of these ids that are commits in a repository. */
export async function commitsAmong(
  place: Place,
  ids: string[],
): Promise<{ present: string[] }> {
  const asked = [...new Set(ids)].filter((id) => id !== "");
  if (asked.length === 0) return { present: [] };
  const lines = await git(place, [
    "cat-file",
    "--batch-check=%(objectname) %(objecttype)",
  ], { input: asked.map((id) => `${id}^{commit}\n`).join("") });
  const found = lines.split("\n").flatMap((line) =>
    /^([0-9a-f]+) commit$/.exec(line)?.[1] ?? []
  );
  // Tags in `ids` are commits that have other ids.
  return { present: [...new Set(found)] };
}

/**
 * The commits of `ids` that are not in the history of `known`. The `tips` are those of `ids`
 * that are in no other one's history.
 */
export async function newCommits(
  place: Place,
  ids: string[],
  known: string[],
): Promise<{ commits: Set<string>; tips: string[] }> {
  const lines = await git(place, ["rev-list", "--parents", "--stdin"], {
    input: [...ids, ...known.map((id) => `^${id}`)]
      .map((line) => `${line}\n`).join(""),
    config: withoutCaches,
  });
  const commits = new Set<string>();
  const parents = new Set<string>();
  for (const line of lines.split("\n").filter(Boolean)) {
    const [id = "", ...above] = line.split(" ");
    commits.add(id);
    for (const parent of above) parents.add(parent);
  }
  const tips = ids.filter((id) => commits.has(id) && !parents.has(id));
  return { commits, tips };
}

/** The number of commits of `ids` that are not in the history of `known`. */
export async function countOf(
  place: Place,
  ids: string[],
  known: string[],
): Promise<number> {
  const { present } = await commitsAmong(place, ids);
  if (present.length === 0) return 0;
  const without = await commitsAmong(place, known);
  return Number(
    await git(place, ["rev-list", "--count", "--stdin"], {
      input: [...present, ...without.present.map((id) => `^${id}`)]
        .map((line) => `${line}\n`).join(""),
      config: withoutCaches,
    }),
  );
}
