// Directories of git's as a worker may have written them: judged as git itself
// would, and each held while it is read. See gitrepository-layout(5).

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

/** A repository that git would not accept, or that no worker is given; why. */
export class GitRefused extends Error {}

/** A mount whose source was judged: what is mounted must be that. */
export interface JudgedMount {
  source: string;
  target: string;
  readOnly: boolean;
  inode: string;
  uid: number;
  gid: number;
}

/** Mounts what was judged, at the host's path where no other is given. */
export function mountOf(
  { path, inode, uid, gid }: HostPath,
  { target = path, readOnly = false } = {},
): JudgedMount {
  return { source: path, target, readOnly, inode, uid, gid };
}

/** Where a file in the place of .git leads; undefined where it is none of git's. */
export function gitFileText(text: string): string | undefined {
  return /^gitdir: ([^\r\n\0]+)[\r\n]*$/.exec(text)?.[1];
}

/** As is_git_directory() of git's setup.c does. */
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

/** The text of a file of git's with one line; "" for any other. */
export function lineOf(path: string): string {
  const text = readSmallFile(path).replace(/[\r\n]+$/, "");
  return /[\r\n\0]/.test(text) ? "" : text;
}

/**
 * Refuses a repository for a project's git: it must be the same user's, neither
 * contain the project nor be part of it, and not be refused by `refusal`.
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
      if (held.found.kind !== "directory") refuse(`${path} is no directory`);
      return act(held);
    });
  } catch (error) {
    if (error instanceof GitRefused) throw error;
    return refuse(`${path} cannot be looked at`);
  }
  return result ?? refuse(`${path} is outside of the project roots`);
}

/** The real path; undefined where there is none in sight. */
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
