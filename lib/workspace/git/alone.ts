// Finds what a fetch does not bring, and so is lost with the copy.

import { lstatSync } from "node:fs";
import { join, resolve } from "node:path";
import { namesUpTo } from "../../std/directory.ts";
import { isThere } from "../../std/plain-file.ts";
import { runProgram } from "../../std/program.ts";
import { type Change, changesIn } from "./changes.ts";
import { countOf } from "./commits.ts";
import { type Format, gitList, type Place, run, view } from "./git.ts";
import { lfsAmong, lfsObjects } from "./lfs.ts";
import { copyFile } from "./objects.ts";
import { readRefs, readShallow, type Refs } from "./refs.ts";

interface Copy {
  tree: string;
  format: Format;
  known: string[];
  scratch: string;
}

/** What is in submodules and Git LFS, and was not there at first. */
export async function aloneElsewhere(
  copy: Copy,
): Promise<{ commits: number; changed: number }> {
  const gitDir = join(copy.tree, ".git");
  const known = new Set(copy.known);
  let commits = 0;
  let changed = lfsObjects(gitDir).filter((id) => !known.has(id)).length;
  for (const [at, module] of modulesIn(gitDir, 0).entries()) {
    const scratch = join(copy.scratch, `module-${at}`);
    const found = await aloneIn(module, { ...copy, scratch })
      // Nobody knows what is in one that cannot be read.
      .catch(() => ({ commits: 1, changed: 0 }));
    commits += found.commits;
    changed += found.changed;
  }
  return { commits, changed };
}

async function aloneIn(
  module: string,
  { format, known, scratch }: Copy,
): Promise<{ commits: number; changed: number }> {
  const place = await view(scratch, {
    objects: [join(module, "objects")],
    format,
    shallow: readShallow(module),
  });
  const refs = readRefs(module);
  const { branches, head, detached } = refs;
  const ids = [...Object.values(branches), detached ?? ""];
  const commits = await commitsAlone(place, refs, ids, known);
  const tip = detached ?? (head === null ? undefined : branches[head]);
  const { text } = await run(place, [
    ...["config", "--file", join(module, "config"), "--no-includes"],
    ...["--get", "core.worktree"],
  ], { accept: [0, 1] });
  const workTree = resolve(module, text.replace(/\n$/, ""));
  const isThere = lstatSync(join(workTree, ".git"), { throwIfNoEntry: false });
  if (text === "" || tip === undefined || !isThere) {
    return { commits, changed: 0 };
  }
  await run(place, ["update-ref", "--no-deref", "HEAD", tip]);
  const index = join(scratch, "index");
  if (lstatSync(join(module, "index"), { throwIfNoEntry: false })?.isFile()) {
    await copyFile(join(module, "index"), index);
  }
  const files = await changesIn({ ...place, workTree, index }, tip);
  return { commits, changed: files.length };
}

/**
 * The number of commits that are in a repository alone: of its branches `ids`, and of tags,
 * stashes and others, unless a remote has them.
 */
export async function commitsAlone(
  place: Place,
  { others, remotes, unread }: Refs,
  ids: string[],
  known: string[],
): Promise<number> {
  const more = [...known, ...ids, ...remotes];
  return unread + await countOf(place, ids, known) +
    await countOf(place, others, more);
}

/** The git directories of submodules, whose names may have slashes. */
function modulesIn(gitDir: string, depth: number): string[] {
  const below = (directory: string, depth: number): string[] =>
    depth > maxModuleDepth
      ? []
      : namesUpTo(maxEntries, directory).flatMap((name) => {
        const path = join(directory, name);
        if (!lstatSync(path, { throwIfNoEntry: false })?.isDirectory()) {
          return [];
        }
        return isThere(join(path, "objects"))
          ? [path, ...modulesIn(path, depth + 1)]
          : below(path, depth + 1);
      });
  return below(join(gitDir, "modules"), depth).slice(0, maxModules);
}

const maxModuleDepth = 8;
const maxModules = 200;
const maxEntries = 1000;

/** Repositories, and the content of files that are stored with Git LFS. */
export async function notInTree(
  place: Place & { workTree: string },
  files: Change[],
): Promise<Change[]> {
  const present = files.map(({ path }) => path).filter((path) =>
    lstatSync(join(place.workTree, path), { throwIfNoEntry: false })
  );
  const lfs = new Set(await lfsAmong(place, present));
  return files.filter(({ path }) => path.endsWith("/") || lfs.has(path));
}

/**
 * Files and directories that git leaves out of a commit because it cannot read them. Of
 * directories, git reports nothing at all.
 */
export async function unreadIn(
  place: Place & { workTree: string },
  files: Change[],
): Promise<Change[]> {
  const { stdout } = await runProgram([
    ...["find", place.workTree, "-name", ".git", "-prune"],
    ...["-o", "-type", "f", "!", "-readable", "-printf", "%P\\0"],
    ...["-o", "-type", "d", "(", "!", "-readable", "-o", "!", "-executable"],
    ...[")", "-printf", "%P/\\0"],
  ], { maxLength: maxListLength });
  const found = new Set(stdout.split("\0").filter(Boolean));
  if (found.size === 0) return [];
  const directories = [...found].filter((path) => path.endsWith("/"));
  const ignored = await gitList(place, ["check-ignore", "-z", "--stdin"], {
    input: directories.map((path) => `${path}\0`).join(""),
    // Such as for those in submodules.
    accept: [0, 1, 128],
  });
  return [
    ...files.filter(({ path }) => found.has(path)),
    ...directories.filter((path) => !ignored.includes(path))
      .map((path) => ({ path, untracked: true })),
  ];
}

const maxListLength = 1024 ** 2;
