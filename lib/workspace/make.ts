// Makes copies of projects and of other copies.

import { renameSync } from "node:fs";
import { join } from "node:path";
import type * as v from "valibot";
import type { Instance } from "../instance/instance.ts";
import {
  consentTo,
  type RepositoryConsent,
} from "../project/repository-consent.ts";
import type { HostPath } from "../std/hostpath.ts";
import type { Log } from "../std/log.ts";
import {
  copyMount,
  readBase,
  requireOwner,
  sourceIn,
  sourceMounts,
  writeBase,
} from "./base.ts";
import { inside, perform, type WhileFrozen } from "./container.ts";
import { cloneResultSchema } from "./git/clone.ts";
import { forkResultSchema } from "./git/fork.ts";
import { repositoryOf } from "./repository.ts";
import type { Scratch } from "./scratch.ts";
import { copyOf, filesText } from "./workspace.ts";

export interface CopyRequest {
  session: string;
  project: HostPath;
  /** Whether to take along what is not committed. */
  changes: boolean;
  /** Patterns of ignored files to take along. */
  ignored: string[];
  allowAnyPath: boolean;
  repository: RepositoryConsent | undefined;
  /** For a project in which a worker works. */
  frozen?: WhileFrozen;
}

/** Makes the copy of a new session, in the directory that was reserved for it. */
export async function makeCopy(
  instance: Instance,
  request: CopyRequest,
  scratch: Scratch,
  log: Log,
): Promise<void> {
  const { session, project } = request;
  const subject = `Cannot copy ${project.path}`;
  requireOwner(instance, project, subject);
  const repository = repositoryOf(instance, project, request.allowAnyPath);
  if (repository?.outside) {
    await consentTo(repository.common.path, project, request.repository);
  }
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
      live: request.frozen !== undefined,
    },
    log,
    frozen: request.frozen,
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
  tellChanges(result, log);
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

/**
 * Copies the copy of a session for a new one, in the directory that was reserved for it.
 * Returns whether the file system shares the blocks of both.
 */
export async function forkCopy(
  instance: Instance,
  { from, session, frozen }: {
    from: string;
    session: string;
    /** Without it, nothing must change the files. */
    frozen?: WhileFrozen;
  },
  scratch: Scratch,
  log: Log,
): Promise<boolean> {
  const subject = `Cannot fork session "${from}"`;
  const copy = copyOf(instance, from);
  const base = readBase(instance, from);
  const { shared } = await perform(instance, forkResultSchema, scratch, {
    subject,
    user: copy,
    mounts: [copyMount(copy, true)],
    work: {
      do: "fork",
      tree: inside.copy,
      target: `${inside.own}/tree`,
      branch: `claudy/${session}`,
      live: frozen !== undefined,
    },
    log,
    frozen,
  });
  writeBase(instance, session, base);
  renameSync(join(scratch.path, "tree"), instance.home.workspaceTree(session));
  return shared;
}
