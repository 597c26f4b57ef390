// The copies of projects that sessions work in: makes, finds and removes them. See ADR 42.

import { existsSync, lstatSync, renameSync } from "node:fs";
import { join } from "node:path";
import { randomBytes } from "node:crypto";
import * as v from "valibot";
import type { Instance } from "../instance/instance.ts";
import { readSession, type SessionRecord } from "../instance/session-record.ts";
import {
  consentTo,
  type RepositoryConsent,
} from "../project/repository-consent.ts";
import { sessionName } from "../project/project.ts";
import { inDirectory } from "../std/directory.ts";
import { Failure } from "../std/errors.ts";
import { type HostPath, inodeOf } from "../std/hostpath.ts";
import { readJson } from "../std/json.ts";
import type { Log } from "../std/log.ts";
import { writeAtomic } from "../std/owned.ts";
import { removeTree } from "../std/remove-tree.ts";
import {
  inside,
  makeScratch,
  type Mounted,
  perform,
  reserve,
  sweep,
  youngMs,
} from "./container.ts";
import { cloneResultSchema } from "./git/clone.ts";
import { forkResultSchema } from "./git/fork.ts";
import { thawAbandoned } from "./frozen.ts";
import { type Repository, repositoryOf } from "./repository.ts";

/** What a copy was made from, and what the user's repository has of it. */
const baseSchema = v.object({
  version: v.literal(1),
  format: v.picklist(["sha1", "sha256"]),
  head: v.nullable(v.string()),
  /** The repository outside of the project that it was made from, if any. */
  outside: v.nullable(v.string()),
  /** Commits that the user's repository and the copy have had. */
  known: v.array(v.string()),
  /** The tree of the changes without a commit that were fetched last. */
  fetchedTree: v.nullable(v.string()),
});

type Base = v.InferOutput<typeof baseSchema>;

const maxBaseBytes = 16 * 1024 ** 2;

export interface CopyRequest {
  session: string;
  project: HostPath;
  /** Whether to take along what is not committed. */
  changes: boolean;
  /** Patterns of ignored files to take along. */
  ignored: string[];
  allowAnyPath: boolean;
  repository: RepositoryConsent | undefined;
}

/**
 * Makes the copy of a new session, and saves the session by `save` at the same moment. Returns
 * false if another command has taken the name.
 */
export async function makeCopy(
  instance: Instance,
  request: CopyRequest,
  save: () => void,
  log: Log,
): Promise<boolean> {
  const { session, project } = request;
  const subject = `Cannot copy ${project.path}`;
  requireOwner(instance, project, subject);
  const repository = repositoryOf(instance, project, request.allowAnyPath);
  if (repository?.outside) {
    await consentTo(repository.common.path, project, request.repository);
  }
  if (!reserve(instance, session) && !await takeOver(instance, session)) {
    return false;
  }
  const scratch = makeScratch(instance, session, "making");
  try {
    log(`Copying ${project.path} for session ${session}`);
    const places = repository && sourceIn(repository);
    const result = await perform(instance, cloneResultSchema, scratch, {
      subject,
      user: project,
      mounts: repository ? sourceMounts(repository) : [{
        source: project.path,
        target: inside.tree,
        readOnly: true,
        inode: project.inode,
      }],
      work: {
        do: "clone",
        source: places ?? null,
        tree: repository && !repository.tree ? null : inside.tree,
        target: `${inside.own}/tree`,
        branch: `claudy/${session}`,
        changes: request.changes,
        ignored: request.ignored,
      },
      log,
    });
    const { format, head, known } = result;
    writeBase(instance, session, {
      version: 1,
      format,
      head,
      outside: repository?.outside ? repository.common.path : null,
      known,
      fetchedTree: null,
    });
    renameSync(
      join(scratch.path, "tree"),
      instance.home.workspaceTree(session),
    );
    // Without a wait between them: a copy without a session is removed by the next command.
    save();
    tellChanges(result, log);
    return true;
  } finally {
    await removeTree(scratch.path);
  }
}

function tellChanges(
  { changed, untracked, taken, ignored, notices }: v.InferOutput<
    typeof cloneResultSchema
  >,
  log: Log,
): void {
  notices.forEach(log);
  const what = filesText(changed, untracked);
  if (what !== "" && taken) log(`Also in the copy, not committed: ${what}`);
  else if (what !== "") {
    log(`Not in the copy: ${what} (--with-changes takes them along)`);
  }
  if (ignored > 0) log(`Also in the copy: ${ignored} ignored files`);
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

/**
 * Copies the copy of a session for a new one. Returns whether the file system shares the
 * blocks of both. The source must not change meanwhile.
 */
export async function forkCopy(
  instance: Instance,
  from: string,
  session: string,
  save: () => void,
  log: Log,
): Promise<boolean> {
  const subject = `Cannot fork session "${from}"`;
  const copy = copyOf(instance, from);
  const base = readBase(instance, from);
  if (!reserve(instance, session)) {
    throw new Failure("busy", `${subject}: another command makes "${session}"`);
  }
  const scratch = makeScratch(instance, session, "making");
  try {
    const { shared } = await perform(instance, forkResultSchema, scratch, {
      subject,
      user: copy,
      mounts: [copyMount(copy, true)],
      work: {
        do: "fork",
        tree: inside.copy,
        target: `${inside.own}/tree`,
        branch: `claudy/${session}`,
      },
      log,
    });
    writeBase(instance, session, base);
    renameSync(
      join(scratch.path, "tree"),
      instance.home.workspaceTree(session),
    );
    save();
    return shared;
  } finally {
    await removeTree(scratch.path);
  }
}

/** Whether a directory of that name, which a killed command has left, was removed. */
async function takeOver(instance: Instance, session: string): Promise<boolean> {
  await sweepOne(instance, session);
  return reserve(instance, session);
}

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

/** Removes what killed commands have left. */
export async function sweepCopies(instance: Instance): Promise<void> {
  const { home } = instance;
  await thawAbandoned(instance);
  const names = inDirectory(
    home.workspaces,
    (directory) => [...directory.entries()].map(({ name }) => name),
  ) ?? [];
  for (const name of names) {
    if (/^\.removed-[0-9a-f]{12}$/.test(name)) {
      await removeTree(join(home.workspaces, name));
    } else if (!name.startsWith(".")) await sweepOne(instance, name);
  }
}

/**
 * A copy whose session was not saved is removed. One whose session was lost in another way is
 * kept: it has a Claude home.
 */
async function sweepOne(instance: Instance, session: string): Promise<void> {
  const { home } = instance;
  // Before the sweep, which changes its time.
  const found = lstatSync(home.workspace(session), { throwIfNoEntry: false });
  const busy = await sweep(instance, session);
  const isKept = busy || readSession(instance, session) !== undefined ||
    existsSync(join(home.claude, session));
  if (isKept || !found || Date.now() - found.mtimeMs < youngMs) return;
  await removeCopy(instance, session);
}

export function requireOwner(
  { owner }: Instance,
  { path, uid }: HostPath,
  subject: string,
): void {
  if (uid === owner.uid) return;
  throw new Failure(
    "unsafe",
    `${subject}: it belongs to another user than HAL9000_HOME`,
    { hint: `See whose it is: ls -ld ${path}` },
  );
}

/** The copy of an existing session; throws a Failure if it works in the project. */
export function requireCopy(
  instance: Instance,
  record: SessionRecord,
): HostPath {
  if (record.copy) return copyOf(instance, record.name);
  throw new Failure(
    "usage",
    `Session "${record.name}" works in ${record.project} itself, not in a copy`,
    { hint: `Open one with a copy: claudy --clone ${record.project}` },
  );
}

export function readBase(
  { home }: Pick<Instance, "home">,
  session: string,
): Base {
  const path = home.workspaceBase(session);
  const base = readJson(path, baseSchema, maxBaseBytes);
  if (base) return base;
  throw new Failure("failed", `Cannot read ${path}`, {
    hint: "The copy itself is beside it, in tree.",
  });
}

export function writeBase(
  { home, owner }: Pick<Instance, "home" | "owner">,
  session: string,
  base: Base,
): void {
  writeAtomic(home.workspaceBase(session), JSON.stringify(base), owner);
}

export const copyMount = (
  { path, inode }: HostPath,
  readOnly: boolean,
): Mounted => ({
  source: path,
  target: inside.copy,
  readOnly,
  inode,
});

export const commonMount = (
  { common }: Repository,
  readOnly: boolean,
): Mounted => ({
  source: common.path,
  target: inside.common,
  readOnly,
  inode: common.inode,
});

export function sourceMounts(repository: Repository): Mounted[] {
  const { own, common, tree } = repository;
  return [
    commonMount(repository, true),
    ...(own.path === common.path ? [] : [{
      source: own.path,
      target: inside.worktree,
      readOnly: true,
      inode: own.inode,
    }]),
    ...(tree
      ? [{
        source: tree.path,
        target: inside.tree,
        readOnly: true,
        inode: tree.inode,
      }]
      : []),
  ];
}

/** The places of these mounts. */
export function sourceIn({ own, common, tree }: Repository) {
  return {
    common: inside.common,
    own: own.path === common.path ? inside.common : inside.worktree,
    tree: tree ? inside.tree : null,
  };
}

function isThere(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}
