// What of the configuration and the references of the user's repository is in a copy.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { listed } from "../../std/text.ts";
import { type Place, run } from "./git.ts";
import { copyFile } from "./objects.ts";
import { isBranchName } from "./refs.ts";
import {
  type Source,
  SourceConfig,
  type SourcePlaces,
  urlForWorkers,
} from "./source.ts";

/** The name of the user's repository in a copy. */
export const hostRemote = "host";

/** Settings that describe files, and not programs. */
const settings = [
  "core.fileMode",
  "core.symlinks",
  "core.ignoreCase",
  "core.precomposeUnicode",
  "core.autocrlf",
  "core.eol",
  "core.sparseCheckout",
  "core.sparseCheckoutCone",
];

export async function takeSettings(
  config: SourceConfig,
  copy: Place,
  { common, own }: SourcePlaces,
): Promise<void> {
  for (const key of settings) {
    const value = await config.value(key);
    if (value !== undefined) await run(copy, ["config", key, value]);
  }
  const exclude = join(common, "info/exclude");
  if (existsSync(exclude)) {
    await copyFile(exclude, join(copy.gitDir, "info/exclude"));
  }
  const sparse = join(own, "info/sparse-checkout");
  if (await config.value("core.sparseCheckout") && existsSync(sparse)) {
    await copyFile(sparse, join(copy.gitDir, "info/sparse-checkout"));
  }
}

/** The remotes of the user by their names, without credentials, and the user's repository. */
export async function takeRemotes(
  config: SourceConfig,
  copy: Place,
  notices: string[],
): Promise<void> {
  const left = new Set<string>();
  for (
    const [key, value] of await config.matching(
      "^remote\\..*\\.(url|pushurl|fetch)$",
    )
  ) {
    const match = /^remote\.(.+)\.(url|pushurl|fetch)$/s.exec(key);
    const [, name = "", what = ""] = match ?? [];
    if (!isBranchName(name) || name === hostRemote) continue;
    const kept = what === "fetch" ? value : urlForWorkers(value);
    if (kept === undefined) left.add(name);
    else await run(copy, ["config", "--add", `remote.${name}.${what}`, kept]);
  }
  if (left.size > 0) {
    notices.push(
      `Remotes without a URL that a worker can use: ${listed([...left])}`,
    );
  }
  const refspec = `+refs/heads/*:refs/remotes/${hostRemote}/*`;
  await run(copy, ["config", `remote.${hostRemote}.fetch`, refspec]);
  // For `git checkout NAME`, if several remotes have such a branch.
  await run(copy, ["config", "checkout.defaultRemote", hostRemote]);
}

/** The user's branches are those of the remote `host`. */
export async function takeRefs(
  { refs, branch }: Source,
  copy: Place,
): Promise<void> {
  const renamed = refs.flatMap((ref) => {
    const name = nameInCopy(ref.name);
    return name === undefined ? [] : [{ ...ref, name }];
  });
  const lines = renamed.filter(({ target }) => target === "")
    .map(({ name, id }) => `update ${name} ${id}\n`);
  await run(copy, ["update-ref", "--stdin"], { input: lines.join("") });
  if (lines.length > 0) await run(copy, ["pack-refs", "--all"]);
  const links = renamed.filter(({ target }) => target !== "")
    .map(({ name, target }) => [name, nameInCopy(target)]);
  if (
    branch !== null && refs.some(({ name }) => name === `refs/heads/${branch}`)
  ) {
    const main = `refs/remotes/${hostRemote}`;
    links.push([`${main}/HEAD`, `${main}/${branch}`]);
  }
  for (const [name = "", target] of links) {
    if (target) await run(copy, ["symbolic-ref", name, target]);
  }
}

function nameInCopy(name: string): string | undefined {
  const [, kind = "", rest = ""] = /^refs\/([^/]+)\/(.+)$/s.exec(name) ?? [];
  if (kind === "heads") return `refs/remotes/${hostRemote}/${rest}`;
  // Not those of a remote that is called so, and of other sessions.
  const taken = [`${hostRemote}/`, "claudy/"]
    .some((prefix) => rest.startsWith(prefix));
  return kind === "tags" || kind === "remotes" && !taken ? name : undefined;
}
