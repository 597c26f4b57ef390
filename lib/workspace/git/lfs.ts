// Files that are stored with Git LFS: git knows only pointers to their content.

import { chmodSync, existsSync, lstatSync, mkdirSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import { namesUpTo } from "../../std/directory.ts";
import type { Log } from "../../std/log.ts";
import { plainText } from "../../std/plain-file.ts";
import { gitList, type Place, run } from "./git.ts";
import { copyFile, copyTree } from "./objects.ts";

const pointer =
  /^version https:\/\/git-lfs\.github\.com\/spec\/v1\n(?:.*\n)*oid sha256:([0-9a-f]{64})\n/;

/**
 * Puts content that the user's repository has in the place of pointers. Returns the ids of
 * this content.
 */
export async function layOutLfs(
  lfs: string,
  copy: Place & { workTree: string },
  notices: string[],
  log: Log,
): Promise<string[]> {
  const paths = await lfsPaths(copy);
  if (paths.length === 0) return [];
  log("Copying the files of Git LFS");
  const objects: string[] = [];
  const laidOut: string[] = [];
  let missing = 0;
  for (const path of paths) {
    const full = join(copy.workTree, path);
    const text = plainText(full, { maxBytes: 1024 });
    const oid = text === undefined ? undefined : pointer.exec(text)?.[1];
    if (oid === undefined) continue;
    const object = `objects/${oid.slice(0, 2)}/${oid.slice(2, 4)}/${oid}`;
    if (!lstatSync(join(lfs, object), { throwIfNoEntry: false })?.isFile()) {
      missing++;
      continue;
    }
    objects.push(object);
    laidOut.push(path);
    const { mode } = lstatSync(full);
    rmSync(full);
    await copyFile(join(lfs, object), full);
    chmodSync(full, mode & 0o777);
  }
  if (missing > 0) {
    notices.push(
      `Files of Git LFS whose content is not in your repository: ${missing}`,
    );
  }
  if (laidOut.length === 0) return [];
  const own = join(copy.gitDir, "lfs");
  mkdirSync(own, { recursive: true });
  await copyTree(lfs, own, [...new Set(objects)]);
  // The filter makes the same pointers of them, see git.ts.
  await run(copy, ["add", "--pathspec-from-file=-", "--pathspec-file-nul"], {
    input: laidOut.map((path) => `${path}\0`).join(""),
    env: { GIT_LITERAL_PATHSPECS: "1" },
  });
  return objects.map((path) => basename(path));
}

/** The ids of content in a repository. */
export function lfsObjects(gitDir: string): string[] {
  let left = maxObjects;
  const below = (directory: string, depth: number): string[] => {
    const names = namesUpTo(left, directory);
    left -= names.length;
    return depth === 0
      ? names
      : names.flatMap((name) => below(join(directory, name), depth - 1));
  };
  return below(join(gitDir, "lfs/objects"), 2)
    .filter((name) => /^[0-9a-f]{64}$/.test(name));
}

const maxObjects = 200_000;

/** Those of these files that are stored with Git LFS. */
export async function lfsAmong(
  place: Place,
  paths: string[],
): Promise<string[]> {
  const { text } = await run(place, ["check-attr", "-z", "--stdin", "filter"], {
    input: paths.map((path) => `${path}\0`).join(""),
  });
  const fields = text.split("\0");
  return paths.filter((_, at) => fields[at * 3 + 2] === "lfs");
}

async function lfsPaths(copy: Place & { workTree: string }): Promise<string[]> {
  const attributes = await gitList(copy, [
    ...["ls-files", "-z", "--", ".gitattributes", "**/.gitattributes"],
  ]);
  const uses = attributes.some((path) =>
    /\bfilter=lfs\b/.test(
      plainText(join(copy.workTree, path), { maxBytes: 1024 ** 2 }) ?? "",
    )
  );
  if (!uses) return [];
  const paths = await gitList(copy, ["ls-files", "-z"]);
  return (await lfsAmong(copy, paths))
    .filter((path) => existsSync(join(copy.workTree, path)));
}
