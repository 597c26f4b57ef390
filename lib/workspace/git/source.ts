// The user's repository, which is only read here: its references by git, its settings from
// the file, without what that includes.

import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { Failure } from "../../std/errors.ts";
import { readShallow } from "./refs.ts";
import { type Format, git, gitList, type Place, run } from "./git.ts";

/** The user's repository as a container sees it. */
export interface SourcePlaces {
  /** The git directory that worktrees share. */
  common: string;
  /** That of the worktree; the same for others. */
  own: string;
  /** Null for a bare repository. */
  tree: string | null;
}

export interface Ref {
  name: string;
  id: string;
  /** The target of a symbolic reference. */
  target: string;
}

export interface Source {
  place: Place;
  objects: string;
  format: Format;
  shallow: string[];
  refs: Ref[];
  /** The commit of HEAD; null if there is none yet. */
  head: string | null;
  /** The branch of HEAD; null if it is detached. */
  branch: string | null;
}

export async function readSource(
  { common, own, tree }: SourcePlaces,
): Promise<Source> {
  const objects = join(common, "objects");
  if (!statSync(objects, { throwIfNoEntry: false })?.isDirectory()) {
    throw new Failure("failed", "It is not a git repository");
  }
  if (existsSync(join(objects, "info/alternates"))) {
    throw new Failure("failed", "It has objects of another repository", {
      hint:
        "Copy them: git repack -a -d, then remove .git/objects/info/alternates",
    });
  }
  const config = new SourceConfig(common, own);
  if (await config.value("extensions.partialClone")) {
    throw new Failure("failed", "It is a partial clone", {
      hint: "Fetch what is missing: git fetch --refetch --no-filter",
    });
  }
  const given = await config.value("extensions.objectFormat");
  const format: Format = given === "sha256" ? "sha256" : "sha1";
  const place: Place = {
    gitDir: own,
    commonDir: common,
    // A setting of the repository would be a path of the host.
    workTree: tree ?? own,
  };
  const listed = await git(place, [
    "for-each-ref",
    "--format=%(objectname) %(refname) %(symref)",
  ]);
  const refs = listed.split("\n").filter(Boolean).map((line) => {
    const [id = "", name = "", target = ""] = line.split(" ");
    return { name, id, target };
  });
  const symbolic = await run(
    place,
    ["symbolic-ref", "--quiet", "HEAD"],
    { accept: [0, 1] },
  );
  const branch = /^refs\/heads\/(.+)\n$/.exec(symbolic.text)?.[1] ?? null;
  const head = await run(
    place,
    ["rev-parse", "--quiet", "--verify", "HEAD^{commit}"],
    { accept: [0, 1] },
  );
  return {
    place,
    objects,
    format,
    shallow: readShallow(common),
    refs,
    head: head.text.trim() || null,
    branch,
  };
}

/** Settings of a repository itself; those of the user and of the system are not visible. */
export class SourceConfig {
  readonly #place: Place;
  readonly #files: string[];

  /** Those of a worktree take precedence. */
  constructor(common: string, own: string) {
    this.#place = { gitDir: common };
    this.#files = [join(own, "config.worktree"), join(common, "config")]
      .filter((path) => existsSync(path));
  }

  async value(key: string): Promise<string | undefined> {
    for (const file of this.#files) {
      const { exitCode, text } = await run(this.#place, [
        ...["config", "--file", file, "--no-includes", "--get", key],
      ], { accept: [0, 1], cwd: "/" });
      if (exitCode === 0) return text.replace(/\n$/, "");
    }
    return undefined;
  }

  /** Keys and values. */
  async matching(pattern: string): Promise<[key: string, value: string][]> {
    const found: [string, string][] = [];
    for (const file of this.#files) {
      const entries = await gitList(this.#place, [
        ...["config", "--file", file, "--no-includes", "--null"],
        ...["--get-regexp", pattern],
      ], { accept: [0, 1], cwd: "/" });
      for (const entry of entries) {
        const at = entry.indexOf("\n");
        if (at !== -1) found.push([entry.slice(0, at), entry.slice(at + 1)]);
      }
    }
    return found;
  }
}

/**
 * A URL of a remote without credentials; undefined if it is a path of this machine, which a
 * worker does not have, or runs a program.
 */
export function urlForWorkers(url: string): string | undefined {
  // A password may contain an @, and a query a token.
  const match = /^(https?|ssh|git|ftps?):\/\/(?:([^/?#]*)@)?([^?#]+)/s.exec(
    url,
  );
  if (match) {
    const [, scheme = "", user, rest = ""] = match;
    const name = user?.split(/[:@]/)[0];
    const kept = scheme === "ssh" && name ? `${name}@` : "";
    return `${scheme}://${kept}${rest}`;
  }
  // Like git@github.com:owner/name.git
  return /^(?:[\w.-]+@)?[\w.-]+:(?!:|\/\/)\S+$/.test(url) &&
      !/^[a-z]:[\\/]/i.test(url)
    ? url
    : undefined;
}
