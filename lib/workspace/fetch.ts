// Fetches what a session has in its copy into the user's repository.

import type * as v from "valibot";
import type { Instance } from "../instance/instance.ts";
import type { SessionRecord } from "../instance/session-record.ts";
import type { Log } from "../std/log.ts";
import { commonMount, copyMount, readBase } from "./base.ts";
import { inside, perform } from "./container.ts";
import {
  remember,
  userRepository,
  withKnown,
  withScratch,
} from "./exchange.ts";
import { defaultMaxBytes, Limits } from "./git/limits.ts";
import {
  extraBranches,
  type PackResult,
  packResultSchema,
} from "./git/pack.ts";
import { receiveResultSchema } from "./git/receive.ts";
import { requireCopy } from "./workspace.ts";

export interface Fetched {
  session: string;
  /** The reference of the branch that is checked out; null if it has no commit. */
  head: string | null;
  /** The reference of what is not committed, if that was fetched. */
  changes: string | null;
  updated: v.InferOutput<typeof receiveResultSchema>["updated"];
  /** The references that together have all that is new; none of them has the others. */
  tips: string[];
  /** Names of branches that were left out. */
  refused: string[];
  /** Files and directories that cannot be read, and so were not fetched. */
  unread: string[];
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
  { changes, maxBytes = defaultMaxBytes }: {
    changes: boolean;
    maxBytes?: number | undefined;
  },
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
  const base = readBase(instance, session);
  const limits = new Limits(maxBytes);
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
          base: base.head,
          maxBytes,
        },
        log,
        limits,
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
          base: base.head,
          maxBytes,
        },
        log,
        limits,
      }, { ownReadOnly: true });
      return { packed, received };
    });
  const { packed, received } = await withKnown(base, attempt);
  remember(instance, session, Object.values(packed.branches), {
    ...(changes ? { fetchedTree: packed.changesTree } : {}),
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
    tips: namesOf(packed, received.tips).map((name) =>
      `${fetchPrefix(session)}${name}`
    ),
    refused: packed.refused,
    unread: packed.unread,
    changed: packed.changed,
    untracked: packed.untracked,
    withChanges: changes,
  };
}

/** A branch for each of these commits, and the one of what is not committed. */
function namesOf(
  { branches, head, changesTree }: PackResult,
  tips: string[],
): string[] {
  const left = new Set(tips);
  // Another session may have made the same changes.
  if (changesTree !== null) left.add(branches[extraBranches.changes] ?? "");
  return [head ?? "", ...Object.keys(branches)]
    .filter((name) => left.delete(branches[name] ?? ""));
}
