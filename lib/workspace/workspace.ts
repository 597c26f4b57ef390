// The copies of projects that sessions work in: names, finds and removes them. See ADR 42.

import { existsSync, lstatSync, renameSync } from "node:fs";
import { join } from "node:path";
import { randomBytes } from "node:crypto";
import type { Instance } from "../instance/instance.ts";
import { readSession, type SessionRecord } from "../instance/session-record.ts";
import { sessionName } from "../project/project.ts";
import { Failure } from "../std/errors.ts";
import { type HostPath, inodeOf } from "../std/hostpath.ts";
import { measureTrees, removeTree } from "../std/remove-tree.ts";

/** The name of a new session of a project that works in a copy. */
export function newCopyName(instance: Instance, project: string): string {
  for (let number = 1;; number++) {
    const name = `${sessionName(project)}-c${number}`;
    if (
      !readSession(instance, name) &&
      !existsSync(join(instance.home.claude, name)) &&
      !isThere(instance.home.workspace(name))
    ) return name;
  }
}

/** The copy of a session, to mount it. Throws a Failure if it is missing. */
export function copyOf(
  { home, hostHome }: Pick<Instance, "home" | "hostHome">,
  session: string,
): HostPath {
  const path = home.workspaceTree(session);
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (!stat?.isDirectory()) {
    throw new Failure(
      "notFound",
      `The copy of session "${session}" is missing: ${path}`,
      {
        hint: `Remove the session: claudy sessions rm --force ${session}`,
      },
    );
  }
  const { uid, gid } = stat;
  return {
    path: hostHome.workspaceTree(session),
    kind: "directory",
    uid,
    gid,
    inode: inodeOf(path),
  };
}

/** The copy of an existing session; throws a Failure if it works in the project. */
export function requireCopy(
  instance: Instance,
  record: Pick<SessionRecord, "name" | "project" | "copy">,
): HostPath {
  if (record.copy) return copyOf(instance, record.name);
  throw new Failure(
    "usage",
    `Session "${record.name}" works in ${record.project} itself, not in a copy`,
    { hint: `Open one with a copy: claudy --clone ${record.project}` },
  );
}

/** Where a copy is, and what it takes on disk; null if that takes too long to measure. */
export interface Workspace {
  path: string;
  sizeBytes: number | null;
}

/** The same sessions, with the copies of those that have one. */
export async function measureCopies<T extends Sized>(
  { home }: Pick<Instance, "home">,
  sessions: T[],
): Promise<(T & { workspace?: Workspace })[]> {
  const pathOf = ({ name }: Sized) => home.workspaceTree(name);
  const copied = sessions.filter(({ copy }) => copy);
  const sizes = await measureTrees(copied.map(pathOf));
  return sessions.map((session) => {
    if (!session.copy) return session;
    const path = pathOf(session);
    return {
      ...session,
      workspace: { path, sizeBytes: sizes.get(path) ?? null },
    };
  });
}

type Sized = Pick<SessionRecord, "name" | "copy">;

/** Removes a copy. It is renamed first, so that a kill leaves all or nothing of it. */
export async function removeCopy(
  { home }: Pick<Instance, "home">,
  session: string,
): Promise<void> {
  const path = home.workspace(session);
  if (!isThere(path)) return;
  const aside = join(
    home.workspaces,
    `.removed-${randomBytes(6).toString("hex")}`,
  );
  renameSync(path, aside);
  await removeTree(aside);
}

/** "2 changed and 1 untracked files"; "" for none. */
export function filesText(changed: number, untracked: number): string {
  const parts = [
    ...(changed > 0 ? [`${changed} changed`] : []),
    ...(untracked > 0 ? [`${untracked} untracked`] : []),
  ];
  const total = changed + untracked;
  return total === 0
    ? ""
    : `${parts.join(" and ")} ${total === 1 ? "file" : "files"}`;
}

function isThere(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}
