// What a worker has added to a project that programs on the host run by themselves. The
// project is compared with how it was when the worker started.

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { readlinkSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import * as v from "valibot";
import type { HostView } from "../std/hostpath.ts";
import { NotPlain, readPlainFile } from "../std/plain-file.ts";
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
/** Of a directory of hooks, or of an editor. */
const maxFiles = 200;
const maxLines = 20;

export function takeSnapshot(
  project: string,
  repository: string | undefined,
  { mount }: HostView,
  repositories: Repositories,
  guarded: boolean,
): Snapshot {
  const found = look(project, repository, mount, repositories);
  const directories = guardedFiles.map(({ path }) => path).filter((path) =>
    [...found.keys()].some((name) => name.startsWith(`${path}/`))
  );
  return {
    version: 1,
    project,
    repository: repository ?? null,
    complete: repositories.complete,
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
}

export function plantedSince(
  { project, repository, complete: isNew, guarded, found }: Snapshot,
  { mount }: HostView,
): Planted {
  const now = findRepositories(mount + project, endLimits);
  const files = [...look(project, repository ?? undefined, mount, now)]
    .filter(([path, { digest }]) =>
      found[path] !== digest &&
      !guarded.some((directory) => path.startsWith(`${directory}/`))
    )
    .map(([path, { what }]) => ({ path, what }));
  return { files, isNew, complete: now.complete };
}

/** Lines for the user; empty if there is nothing. */
export function plantedLines(
  project: string,
  { files, isNew, complete }: Planted,
): string[] {
  if (files.length === 0) return [];
  const since = isNew ? "" : ", or were too deep to be seen then";
  const more = files.length - maxLines;
  return [
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
): Map<string, Found> {
  const found = new Map<string, Found>();
  const root = mount + project;
  for (const directory of directories) {
    addRepository(root, directory, directory, found);
  }
  for (const file of files) addGitFile(root, file, found);
  if (repository) addRepository(mount + repository, "", repository, found);
  for (const { path, reason } of [...guardedFiles, ...watchedFiles]) {
    addTree(root, path, reason, found);
  }
  return found;
}

function addRepository(
  root: string,
  directory: string,
  shown: string,
  found: Map<string, Found>,
): void {
  for (const name of ["config", "config.worktree"]) {
    const text = read(root, join(directory, name))?.toString("utf8");
    const settings = programSettings(text ?? "");
    if (settings.length === 0) continue;
    const names = settings.map((line) => line.split("=")[0]).slice(0, 5);
    found.set(join(shown, name), {
      digest: digestOf(settings.join("\n")),
      what: `settings of git: ${names.join(", ")}`,
    });
  }
  for (const path of filesBelow(root, join(directory, "hooks"), 0)) {
    if (path.endsWith(".sample")) continue;
    const name = join(shown, path.slice(directory.length));
    found.set(name, fileFound(root, path, "a hook of git"));
  }
  // The main git directory has none: git would read another configuration.
  const common = join(directory, "commondir");
  if (!read(root, common)) return;
  found.set(join(shown, "commondir"), {
    ...fileFound(root, common, "git reads the configuration in that directory"),
  });
}

/** A .git file that does not lead to a worktree or submodule of the project. */
function addGitFile(
  root: string,
  path: string,
  found: Map<string, Found>,
): void {
  const text = read(root, path)?.toString("utf8") ?? "";
  if (/^gitdir: \S*\.git\/(worktrees|modules)\/\S*\s*$/.test(text)) return;
  found.set(path, {
    digest: digestOf(text),
    what: "git reads the configuration in that directory",
  });
}

function addTree(
  root: string,
  path: string,
  reason: string,
  found: Map<string, Found>,
): void {
  if (read(root, path)) found.set(path, fileFound(root, path, reason));
  for (const file of filesBelow(root, path, 2)) {
    found.set(file, fileFound(root, file, reason));
  }
}

/** For a link within the project, also its target. */
function fileFound(root: string, path: string, what: string): Found {
  const target = linkTarget(root, path);
  const inner = target && resolve("/", dirname(path), target).slice(1);
  const content = read(root, inner ?? path);
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
function read(root: string, path: string): Buffer | undefined {
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
  return bytes;
}

function digestOf(content: string | Uint8Array): string {
  return createHash("sha256").update(content).digest("hex").slice(0, 16);
}
