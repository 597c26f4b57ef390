// What a worker has added to a project that programs on the host run by themselves. The
// project is compared with how it was when the worker started.

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { readlinkSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import * as v from "valibot";
import type { HostView } from "../std/hostpath.ts";
import { isThere, NotPlain, readPlainFile } from "../std/plain-file.ts";
import { printable } from "../std/text.ts";
import { programSettings } from "./git-settings.ts";
import {
  findRepositories,
  inDirectoryBelow,
  type Repositories,
} from "./repositories.ts";
import { guardedFiles, watchedFiles } from "./run-by-tools.ts";

export const snapshotSchema = v.object({
  version: v.literal(1),
  project: v.string(),
  /** The git directory outside of the project. */
  repository: v.nullable(v.string()),
  /** Whether the whole project was searched. */
  complete: v.boolean(),
  /** Digests by path. */
  found: v.record(v.string(), v.string()),
  /** Directories that the worker could not change. */
  guarded: v.array(v.string()),
});

export type Snapshot = v.InferOutput<typeof snapshotSchema>;

/** Something that runs on the host. */
interface Found {
  digest: string;
  /** What runs it, or which settings. */
  what: string;
}

/** When a worker ends, more time is taken than when it starts. */
const endLimits = { maxDirectories: 5000, maxEntries: 100_000, maxDepth: 8 };

const maxBytes = 1024 * 1024;
/** The worker may have created any number of repositories. */
const maxReads = { files: 5000, bytes: 64 * 1024 * 1024 };
/** Of names in a line; a setting may be of any length. */
const maxNameLength = 60;
/** Of a directory of hooks or of an editor, and of what is reported. */
const maxFiles = 200;
const maxLines = 20;

interface Look {
  root: string;
  found: Map<string, Found>;
  /** How much more may be read. */
  left: { files: number; bytes: number };
}

export function takeSnapshot(
  project: string,
  repository: string | undefined,
  { mount }: HostView,
  repositories: Repositories,
  guarded: boolean,
): Snapshot {
  const { found, complete } = look(project, repository, mount, repositories);
  const directories = guardedFiles.map(({ path }) => path).filter((path) =>
    [...found.keys()].some((name) => name.startsWith(`${path}/`))
  );
  return {
    version: 1,
    project,
    repository: repository ?? null,
    complete: repositories.complete && complete,
    found: Object.fromEntries(
      [...found].map(([path, { digest }]) => [path, digest]),
    ),
    guarded: guarded ? directories : [],
  };
}

export interface Planted {
  /** Paths are relative to the project, or absolute. The worker may have chosen them. */
  files: { path: string; what: string }[];
  /** Whether they were not there before; else they may have been too deep to be seen. */
  isNew: boolean;
  /** Whether the whole project was searched. */
  complete: boolean;
  /** Whether all that was found was also read. */
  read: boolean;
}

export function plantedSince(
  { project, repository, complete: isNew, guarded, found }: Snapshot,
  { mount }: HostView,
): Planted {
  const now = findRepositories(mount + project, endLimits);
  const seen = look(project, repository ?? undefined, mount, now);
  const files = [...seen.found]
    .filter(([path, { digest }]) =>
      found[path] !== digest &&
      !guarded.some((directory) => path.startsWith(`${directory}/`))
    )
    .slice(0, maxFiles)
    .map(([path, { what }]) => ({ path, what }));
  return { files, isNew, complete: now.complete, read: seen.complete };
}

/** Lines for the user; empty if there is nothing. */
export function plantedLines(
  project: string,
  { files, isNew, complete, read }: Planted,
): string[] {
  const excess = read
    ? []
    : [`warning: ${project} has more hooks and repositories than are compared`];
  if (files.length === 0) return excess.map(printable);
  const since = isNew ? "" : ", or were too deep to be seen then";
  const more = files.length - maxLines;
  return [
    ...excess,
    `warning: Your git, editor or shell may run these files of ${project}. ` +
    `They were added or changed since the worker started${since}. Read them first:`,
    ...files.slice(0, maxLines).map(({ path, what }) => `  ${path}: ${what}`),
    ...(more > 0 ? [`  ... and ${more} more`] : []),
    ...(complete ? [] : ["  The project is too large to be searched fully"]),
  ].map(printable);
}

function look(
  project: string,
  repository: string | undefined,
  mount: string,
  { directories, files }: Repositories,
): { found: Map<string, Found>; complete: boolean } {
  const root = mount + project;
  const look: Look = { root, found: new Map(), left: { ...maxReads } };
  for (const { path, reason } of [...guardedFiles, ...watchedFiles]) {
    addTree(look, path, reason);
  }
  if (repository) {
    addRepository({ ...look, root: mount + repository }, "", repository);
  }
  for (const directory of directories) {
    addRepository(look, directory, directory);
  }
  for (const file of files) addGitFile(look, file);
  return {
    found: look.found,
    complete: look.left.files > 0 && look.left.bytes > 0,
  };
}

function addRepository(
  look: Look,
  directory: string,
  shown: string,
): void {
  const { root, found } = look;
  for (const name of ["config", "config.worktree"]) {
    const text = read(look, join(directory, name))?.toString("utf8");
    const settings = programSettings(text ?? "");
    if (settings.length === 0) continue;
    const names = settings.slice(0, 5)
      .map((line) => line.split("=")[0]?.slice(0, maxNameLength));
    found.set(join(shown, name), {
      digest: digestOf(settings.join("\n")),
      what: `settings of git: ${names.join(", ")}`,
    });
  }
  for (const path of filesBelow(root, join(directory, "hooks"), 0)) {
    if (path.endsWith(".sample")) continue;
    const name = join(shown, path.slice(directory.length));
    found.set(name, fileFound(look, path, "a hook of git"));
  }
  // The main git directory has none: git would read another configuration.
  const common = join(directory, "commondir");
  if (!read(look, common)) return;
  found.set(join(shown, "commondir"), {
    ...fileFound(look, common, "git reads the configuration in that directory"),
  });
}

/** A .git file that does not lead to a worktree or submodule of the project. */
function addGitFile(look: Look, path: string): void {
  const text = read(look, path)?.toString("utf8") ?? "";
  if (/^gitdir: \S*\.git\/(worktrees|modules)\/\S*\s*$/.test(text)) return;
  look.found.set(path, {
    digest: digestOf(text),
    what: "git reads the configuration in that directory",
  });
}

function addTree(look: Look, path: string, reason: string): void {
  const { root, found } = look;
  // Most projects have few of them.
  if (!isThere(join(root, path))) return;
  if (read(look, path)) found.set(path, fileFound(look, path, reason));
  for (const file of filesBelow(root, path, 2)) {
    found.set(file, fileFound(look, file, reason));
  }
}

/** For a link within the project, also its target. */
function fileFound(look: Look, path: string, what: string): Found {
  const target = linkTarget(look.root, path);
  const inner = target && resolve("/", dirname(path), target).slice(1);
  const content = read(look, inner ?? path);
  return {
    digest: digestOf(`${target}\n${content?.toString("latin1")}`),
    what,
  };
}

/** The target of a link; undefined for anything else. */
function linkTarget(root: string, path: string): string | undefined {
  let target: string | undefined;
  inDirectoryBelow(root, dirname(path), (directory) => {
    try {
      target = readlinkSync(directory.at(basename(path)));
    } catch {
      // It is a file, or has been removed.
    }
  });
  return target;
}

/** The files in a directory, up to a number and depth. */
function filesBelow(root: string, directory: string, depth: number): string[] {
  const files: string[] = [];
  const inner: string[] = [];
  inDirectoryBelow(root, directory, (opened) => {
    for (const { name, kind } of opened.entries()) {
      if (files.length + inner.length >= maxFiles) break;
      (kind === "directory" ? inner : files).push(join(directory, name));
    }
  });
  if (depth > 0) {
    for (const path of inner.slice(0, maxFiles - files.length)) {
      if (files.length >= maxFiles) break;
      files.push(...filesBelow(root, path, depth - 1));
    }
  }
  return files.slice(0, maxFiles);
}

/** A file that is reached without links; undefined if there is none, or it is large. */
function read({ root, left }: Look, path: string): Buffer | undefined {
  if (left.files <= 0 || left.bytes <= 0) return undefined;
  let bytes: Buffer | undefined;
  inDirectoryBelow(root, dirname(path), (directory) => {
    try {
      bytes = readPlainFile(directory.at(basename(path)), { maxBytes });
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (error instanceof NotPlain || code !== undefined) return;
      throw error;
    }
  });
  left.files -= 1;
  left.bytes -= bytes?.length ?? 0;
  return bytes;
}

function digestOf(content: string | Uint8Array): string {
  return createHash("sha256").update(content).digest("hex").slice(0, 16);
}
