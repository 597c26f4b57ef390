// Finds the git directories in a project, which may be hostile: no link is followed, and
// the search is bounded.

import { join } from "node:path";
import { Directory, type Entry } from "../std/directory.ts";

export interface Repositories {
  /** Git directories, relative to the project: those with submodules and bare ones too. */
  directories: string[];
  /** Files named .git, relative to the project. */
  files: string[];
  /** Whether the whole project was searched. */
  complete: boolean;
}

export interface SearchLimits {
  maxDirectories: number;
  maxEntries: number;
  maxDepth: number;
}

/** Packages are not repositories, and there may be very many. */
const skipped = ["node_modules"];

/** Searches level by level: what is deeper is rarer. */
export function findRepositories(
  project: string,
  { maxDirectories, maxEntries, maxDepth }: SearchLimits,
): Repositories {
  const found: Repositories = { directories: [], files: [], complete: true };
  let level = [""];
  let directories = 0;
  let entries = 0;
  for (let depth = 0; level.length > 0; depth++) {
    const next: string[] = [];
    for (const path of level) {
      if (++directories > maxDirectories || entries > maxEntries) {
        return { ...found, complete: false };
      }
      const listed = entriesOf(project, path, maxEntries - entries);
      entries += listed.length;
      next.push(...visit(path, listed, found));
    }
    if (depth === maxDepth && next.length > 0) found.complete = false;
    level = depth === maxDepth ? [] : next;
  }
  return found;
}

/** Adds what a directory is or contains. Returns the directories to search next. */
function visit(
  path: string,
  entries: Entry[],
  { directories, files }: Repositories,
): string[] {
  const kinds = new Map(entries.map(({ name, kind }) => [name, kind]));
  const next: string[] = [];
  const git = join(path, ".git");
  if (kinds.get(".git") === "directory") {
    directories.push(git);
    next.push(join(git, "modules"));
  } else if (kinds.get(".git") === "file") files.push(git);
  // See is_git_directory() in git's setup.c. HEAD may be elsewhere.
  const isGit = kinds.has("HEAD") && kinds.has("commondir") ||
    kinds.get("objects") === "directory" && kinds.get("refs") === "directory";
  if (isGit) {
    directories.push(path);
    return path === "" ? [...next, ...others()] : [join(path, "modules")];
  }
  return [...next, ...others()];

  function others(): string[] {
    return entries
      .filter(({ name, kind }) =>
        kind === "directory" && name !== ".git" && !skipped.includes(name)
      )
      .map(({ name }) => join(path, name));
  }
}

/** The entries of a directory that is reached without links; at most `maxEntries`. */
function entriesOf(
  project: string,
  path: string,
  maxEntries: number,
): Entry[] {
  const entries: Entry[] = [];
  inDirectoryBelow(project, path, (directory) => {
    for (const entry of directory.entries()) {
      entries.push(entry);
      if (entries.length > maxEntries) break;
    }
  });
  return entries;
}

/** Calls `act` with a directory that is reached without links, if there is one. */
export function inDirectoryBelow(
  root: string,
  path: string,
  act: (directory: Directory) => void,
): void {
  let directory = Directory.open(root);
  try {
    for (
      const part of path.split("/").filter((part) =>
        part !== "" && part !== "."
      )
    ) {
      const inner: Directory | undefined = directory?.enter(part);
      directory?.close();
      directory = inner;
    }
    if (directory) act(directory);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "EACCES" && code !== "EPERM") throw error;
  } finally {
    directory?.close();
  }
}
