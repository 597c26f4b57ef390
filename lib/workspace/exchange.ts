// Commits go in and out of a session's copy by packs: one container reads the one side and
// makes a pack, another one examines it and gives it to the other side.

import * as v from "valibot";
import type { Instance } from "../instance/instance.ts";
import type { SessionRecord } from "../instance/session-record.ts";
import { resolveProject } from "../project/project.ts";
import { Failure } from "../std/errors.ts";
import type { HostPath } from "../std/hostpath.ts";
import type { Log } from "../std/log.ts";
import { removeTree } from "../std/remove-tree.ts";
import {
  inside,
  makeScratch,
  perform,
  type Scratch,
  sweep,
} from "./container.ts";
import { hostRemote } from "./git/clone-config.ts";
import { diffResultSchema } from "./git/diff.ts";
import {
  extraBranches,
  offerResultSchema,
  packResultSchema,
} from "./git/pack.ts";
import { receiveResultSchema } from "./git/receive.ts";
import { type Repository, repositoryOf } from "./repository.ts";
import {
  commonMount,
  copyMount,
  readBase,
  requireOwner,
  sourceIn,
  sourceMounts,
  writeBase,
} from "./base.ts";
import { requireCopy } from "./workspace.ts";

/** Later ones are more likely to be useful. */
const maxKnown = 20_000;

export interface Fetched {
  session: string;
  /** The reference of the branch that is checked out; null if it has no commit. */
  head: string | null;
  /** The reference of what is not committed, if that was fetched. */
  changes: string | null;
  updated: v.InferOutput<typeof receiveResultSchema>["updated"];
  /** Names of branches that were left out. */
  refused: string[];
  /** Paths that are not committed, and whether they were fetched. */
  changed: number;
  untracked: number;
  withChanges: boolean;
}

/** Where a session's commits are in the user's repository. */
export function fetchPrefix(session: string): string {
  return `refs/remotes/claudy/${session}/`;
}

/** Fetches the commits of a session into the user's repository. */
export async function fetchCopy(
  instance: Instance,
  record: SessionRecord,
  { changes }: { changes: boolean },
  log: Log,
): Promise<Fetched> {
  const session = record.name;
  const subject = `Cannot fetch from session "${session}"`;
  const { project, repository } = await userRepository(
    instance,
    record,
    subject,
  );
  const copy = requireCopy(instance, record);
  let base = readBase(instance, session);
  const attempt = async (known: string[]) =>
    await withScratch(instance, session, async (scratch) => {
      const packed = await perform(instance, packResultSchema, scratch, {
        subject,
        user: project,
        mounts: [copyMount(copy, true)],
        work: {
          do: "pack",
          tree: inside.copy,
          format: base.format,
          known,
          changes,
          fetchedTree: null,
          scratch: inside.own,
          write: true,
        },
        log,
      });
      const received = await perform(instance, receiveResultSchema, scratch, {
        subject,
        user: project,
        mounts: [commonMount(repository, false)],
        work: {
          do: "receive",
          common: inside.common,
          pack: `${inside.own}/pack`,
          format: base.format,
          branches: packed.branches,
          prefix: fetchPrefix(session),
          isCopy: false,
        },
        log,
      }, { ownReadOnly: true });
      return { packed, received };
    });
  const { packed, received } = await attempt(base.known).catch((error) => {
    // The user may have removed commits that the pack builds on.
    const again = error instanceof Failure && error.kind === "failed" &&
      base.known.length > 0;
    return again ? attempt([]) : Promise.reject(error);
  });
  base = readBase(instance, session);
  writeBase(instance, session, {
    ...base,
    known: merged(base.known, Object.values(packed.branches)),
    fetchedTree: changes ? packed.changesTree : base.fetchedTree,
  });
  return {
    session,
    head: packed.head !== null && packed.head in packed.branches
      ? `${fetchPrefix(session)}${packed.head}`
      : null,
    changes: packed.changesTree !== null
      ? `${fetchPrefix(session)}${extraBranches.changes}`
      : null,
    updated: received.updated,
    refused: packed.refused,
    changed: packed.changed,
    untracked: packed.untracked,
    withChanges: changes,
  };
}

/** What a session's copy has that the user's repository does not have. */
export interface Unfetched {
  commits: number;
  changed: number;
  untracked: number;
}

export async function unfetchedIn(
  instance: Instance,
  record: SessionRecord,
  log: Log,
): Promise<Unfetched> {
  const copy = requireCopy(instance, record);
  const { format, known, fetchedTree } = readBase(instance, record.name);
  return await withScratch(
    instance,
    record.name,
    (scratch) =>
      perform(instance, packResultSchema, scratch, {
        subject: `Cannot read the copy of session "${record.name}"`,
        user: copy,
        mounts: [copyMount(copy, true)],
        work: {
          do: "pack",
          tree: inside.copy,
          format,
          known,
          changes: false,
          fetchedTree,
          scratch: inside.own,
          write: false,
        },
        log,
      }),
  );
}

/** The difference between the user's branch and that of a session, as a patch. */
export async function diffCopy(
  instance: Instance,
  record: SessionRecord,
  { changes, stat }: { changes: boolean; stat: boolean },
  log: Log,
): Promise<v.InferOutput<typeof diffResultSchema>> {
  const session = record.name;
  const subject = `Cannot compare session "${session}"`;
  const project = await projectOf(instance, record);
  const repository = repositoryOf(instance, project, true);
  if (repository) requireSameRepository(instance, record, repository);
  const copy = requireCopy(instance, record);
  const { format, head } = readBase(instance, session);
  return await withScratch(
    instance,
    session,
    (scratch) =>
      perform(instance, diffResultSchema, scratch, {
        subject,
        user: project,
        mounts: [
          copyMount(copy, true),
          ...(repository
            ? sourceMounts({ ...repository, tree: undefined })
            : []),
        ],
        work: {
          do: "diff",
          tree: inside.copy,
          format,
          source: repository ? { ...sourceIn(repository), tree: null } : null,
          base: head,
          changes,
          stat,
          scratch: inside.own,
        },
        log,
      }),
  );
}

/** Brings the user's new commits into the copy of a session. */
export async function pullIntoCopy(
  instance: Instance,
  record: SessionRecord,
  log: Log,
): Promise<v.InferOutput<typeof receiveResultSchema>["updated"]> {
  const session = record.name;
  const subject = `Cannot pull into session "${session}"`;
  const { project, repository } = await userRepository(
    instance,
    record,
    subject,
  );
  const copy = requireCopy(instance, record);
  const base = readBase(instance, session);
  const attempt = async (known: string[]) =>
    await withScratch(instance, session, async (scratch) => {
      const { branches } = await perform(instance, offerResultSchema, scratch, {
        subject,
        user: project,
        mounts: sourceMounts({ ...repository, tree: undefined }),
        work: {
          do: "offer",
          source: { ...sourceIn(repository), tree: null },
          known,
          scratch: inside.own,
        },
        log,
      });
      const { updated } = await perform(
        instance,
        receiveResultSchema,
        scratch,
        {
          subject,
          user: copy,
          mounts: [copyMount(copy, false)],
          work: {
            do: "receive",
            common: `${inside.copy}/.git`,
            pack: `${inside.own}/pack`,
            format: base.format,
            branches,
            prefix: `refs/remotes/${hostRemote}/`,
            // Their commits are in the user's repository.
            isCopy: true,
          },
          log,
        },
        { ownReadOnly: true },
      );
      return { branches, updated };
    });
  const { branches, updated } = await attempt(base.known).catch((error) => {
    const again = error instanceof Failure && error.kind === "failed" &&
      base.known.length > 0;
    return again ? attempt([]) : Promise.reject(error);
  });
  const now = readBase(instance, session);
  writeBase(instance, session, {
    ...now,
    known: merged(now.known, Object.values(branches)),
  });
  return updated;
}

function merged(known: string[], more: string[]): string[] {
  return [...new Set([...known, ...more])].slice(-maxKnown);
}

async function withScratch<T>(
  instance: Instance,
  session: string,
  act: (scratch: Scratch) => Promise<T>,
): Promise<T> {
  await sweep(instance, session);
  const scratch = makeScratch(instance, session, "reading");
  try {
    return await act(scratch);
  } finally {
    await removeTree(scratch.path);
  }
}

async function projectOf(
  instance: Instance,
  { project: path }: SessionRecord,
): Promise<HostPath> {
  return await resolveProject(instance, {
    path,
    cwd: "/",
    as: "project",
    allowAny: true,
  });
}

async function userRepository(
  instance: Instance,
  record: SessionRecord,
  subject: string,
): Promise<{ project: HostPath; repository: Repository }> {
  const project = await projectOf(instance, record);
  requireOwner(instance, project, subject);
  const repository = repositoryOf(instance, project, true);
  if (repository) {
    requireSameRepository(instance, record, repository);
    return { project, repository };
  }
  throw new Failure(
    "notFound",
    `${subject}: ${project.path} is no repository`,
    {
      hint: `Make it one: git -C ${project.path} init. ` +
        `Or see the files in ${instance.home.workspaceTree(record.name)}`,
    },
  );
}

/**
 * Throws if the project now refers to another repository outside of it than the one that the
 * user has allowed: a worker may have changed that.
 */
function requireSameRepository(
  instance: Instance,
  { name, project }: SessionRecord,
  { outside, common }: Repository,
): void {
  if (!outside || readBase(instance, name).outside === common.path) return;
  throw new Failure(
    "unsafe",
    `${project} is now a part of ${common.path}, and was not when it was copied`,
    { hint: "See what its .git file contains." },
  );
}
