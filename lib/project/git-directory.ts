// Validates git directories that a worker may have written, by git's own rules. Each is
// held open while it is read. See gitrepository-layout(5).

import { statSync } from "node:fs";
import {
  type Held,
  holding,
  type HostPath,
  type HostView,
  isWithin,
  lookAt,
  readSmallFile,
} from "../std/hostpath.ts";

/** git would reject the repository, or workers may not have it; the message is why. */
export class GitRefused extends Error {}

/** A mount whose source was checked: the mounted directory must have this inode. */
export interface JudgedMount {
  source: string;
  target: string;
  readOnly: boolean;
  inode: string;
  uid: number;
  gid: number;
}

/** The mount of a checked path; by default, the target is the host's path. */
export function mountOf(
  { path, inode, uid, gid }: HostPath,
  { target = path, readOnly = false } = {},
): JudgedMount {
  return { source: path, target, readOnly, inode, uid, gid };
}

/** The target of a .git file; undefined if it is not a valid .git file. */
export function gitFileText(text: string): string | undefined {
  return /^gitdir: ([^\r\n\0]+)[\r\n]*$/.exec(text)?.[1];
}

/** Same checks as is_git_directory() in git's setup.c. */
export function checkRepository({ path }: HostPath, at: string): void {
  const complete = isHead(`${at}/HEAD`) &&
    ["objects", "refs"].every((name) =>
      statSync(`${at}/${name}`, { throwIfNoEntry: false })?.isDirectory()
    );
  if (!complete) refuse(`${path} is not a git directory`);
}

export function isHead(path: string): boolean {
  return /^(ref: *refs\/\S+|[0-9a-f]{40}|[0-9a-f]{64})$/.test(lineOf(path));
}

/** The text of a file with exactly one line; "" for other files. */
export function lineOf(path: string): string {
  const text = readSmallFile(path).replace(/[\r\n]+$/, "");
  return /[\r\n\0]/.test(text) ? "" : text;
}

/**
 * Refuses a project's outside repository if it contains the project, is part of it, or is
 * refused by `refusal`.
 */
export function checkGiven(
  project: HostPath,
  repository: HostPath,
  refusal: (path: string) => string | undefined,
): void {
  const { path } = repository;
  if (isWithin(project.path, path)) refuse(`${path} contains the project`);
  if (isWithin(path, project.path)) refuse(`${path} is part of the project`);
  const reason = refusal(path);
  if (reason !== undefined) refuse(`${path}: ${reason}`);
}

export function checkOwner(project: HostPath, { path, uid }: HostPath): void {
  if (uid !== project.uid) refuse(`${path} belongs to another user`);
}

export function held<T>(
  path: string,
  view: HostView,
  act: (held: Held) => T,
): T {
  let result: T | undefined;
  try {
    result = holding(path, view, (held) => {
      if (held.found.kind !== "directory") refuse(`${path} is not a directory`);
      return act(held);
    });
  } catch (error) {
    if (error instanceof GitRefused) throw error;
    return refuse(`${path} cannot be accessed`);
  }
  return result ?? refuse(`${path} is outside of the project roots`);
}

/** The real path; undefined if it is missing or not visible. */
export function pathOf(path: string, view: HostView): string | undefined {
  try {
    return lookAt(path, view)?.path;
  } catch {
    return undefined;
  }
}

export function refuse(reason: string): never {
  throw new GitRefused(reason);
}
