// What of the user's files is in a copy that git has not committed.

import { existsSync, lstatSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { namesIn } from "../../std/names-in.ts";
import { runProgram } from "../../std/program.ts";
import { listed } from "../../std/text.ts";
import { type Change, changesIn } from "./changes.ts";
import { gitList, type Place } from "./git.ts";
import { copyFile, copyTree } from "./objects.ts";
import type { Source } from "./source.ts";

export async function changesOf(
  source: Source,
  tree: string,
  own: string,
  copy: Place & { workTree: string },
): Promise<Change[]> {
  const index = join(copy.gitDir, "index.host");
  const part = namesIn(own).filter((name) => /^sharedindex\./.test(name));
  for (const name of part) {
    await copyFile(join(own, name), join(copy.gitDir, name));
  }
  const present = existsSync(join(own, "index"));
  if (present) await copyFile(join(own, "index"), index);
  try {
    return await changesIn({ ...copy, workTree: tree, index }, source.head);
  } finally {
    for (
      const name of [
        index,
        ...part.map((name) => join(copy.gitDir, name)),
      ]
    ) {
      rmSync(name, { force: true });
    }
  }
}

/**
 * Files only: a directory among the changes is a repository of its own, whose configuration
 * may have credentials, or was a file, and its files are changes too.
 */
export async function takeChanges(
  changes: Change[],
  tree: string,
  target: string,
  notices: string[],
): Promise<void> {
  const repositories: string[] = [];
  const files: string[] = [];
  for (const { path } of changes) {
    const plain = path.replace(/\/$/, "");
    // An index may name what git does not track.
    if (plain.split("/").some((part) => /^(?:\.{0,2}|\.git)$/i.test(part))) {
      continue;
    }
    const found = kindOf(tree, plain);
    if (found === "file") files.push(plain);
    const isKept = found === "directory" &&
      existsSync(join(tree, plain, ".git"));
    if (isKept) repositories.push(plain);
    // First, so that a link that has become a directory is not followed.
    else rmSync(join(target, plain), { recursive: true, force: true });
  }
  if (repositories.length > 0) {
    notices.push(
      `Changes of repositories in it are not in the copy: ${
        listed(repositories)
      }`,
    );
  }
  if (changes.some(({ path }) => path.includes("\ufffd"))) {
    notices.push("Files whose names are not UTF-8 are not in the copy");
  }
  await copyTree(tree, target, files);
}

/** Undefined if it is missing, or if a directory of its path is a link. */
function kindOf(tree: string, path: string): "file" | "directory" | undefined {
  const above = dirname(path);
  if (above !== "." && kindOf(tree, above) !== "directory") return undefined;
  const stat = lstatSync(join(tree, path), { throwIfNoEntry: false });
  return stat && (stat.isDirectory() ? "directory" : "file");
}

/** Of repositories among them only the files: their settings may have credentials. */
export async function takeIgnored(
  place: Place,
  tree: string,
  target: string,
  patterns: string[],
  notices: string[],
): Promise<number> {
  if (patterns.length === 0) return 0;
  const found = await gitList(place, [
    ...["ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--"],
    ...patterns.map((pattern) => `:(glob)${pattern}`),
  ]);
  const files = found.filter((path) => !path.endsWith("/"));
  const repositories = found.filter((path) => path.endsWith("/"))
    .map((path) => path.slice(0, -1));
  for (const repository of repositories) {
    files.push(...await filesOf(tree, repository));
  }
  if (repositories.length > 0) {
    notices.push(
      "Repositories among the ignored files are in the copy without their " +
        `.git: ${listed(repositories)}`,
    );
  }
  await copyTree(tree, target, files);
  return files.length;
}

async function filesOf(tree: string, repository: string): Promise<string[]> {
  const { stdout } = await runProgram([
    ...["find", join(tree, repository), "-name", ".git", "-prune", "-o"],
    ...["!", "-type", "d", "-printf", "%P\\0"],
  ]);
  return stdout.split("\0").filter(Boolean)
    .map((path) => `${repository}/${path}`);
}
