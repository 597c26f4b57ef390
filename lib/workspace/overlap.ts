// Which files two sessions of a project have both changed. See ADR 47.

import * as v from "valibot";
import type { Instance } from "../instance/instance.ts";
import type { SessionRecord } from "../instance/session-record.ts";
import { Failure, messageOf } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { printable } from "../std/text.ts";
import { copyMount, readBase, sourceIn, sourceMounts } from "./base.ts";
import { inside, perform } from "./container.ts";
import { projectOf, requireSameRepository, withScratch } from "./exchange.ts";
import { changedResultSchema } from "./git/changed.ts";
import { repositoryOf } from "./repository.ts";
import { requireCopy } from "./workspace.ts";

/** Paths that a session has changed in its copy, and the user's directory since. */
export type Changed = v.InferOutput<typeof changedResultSchema>;

type Session = Pick<SessionRecord, "name" | "project" | "copy">;

/** Two sessions of a project that change the same files. */
export interface Overlap {
  sessions: [string, string];
  project: string;
  /** Whether both work in the project itself; its files are not compared. */
  sameDirectory: boolean;
  /** The first of them, in order. */
  files: string[];
  count: number;
}

/** A copy whose session makes many files does not delay the others for longer. */
const timeoutMs = 30_000;

const maxFiles = 100;

export async function changedIn(
  instance: Instance,
  { record, beside }: Comparable,
  log: Log,
): Promise<Changed> {
  const session = record.name;
  const project = await projectOf(instance, record);
  const found = repositoryOf(instance, project, true);
  if (found) requireSameRepository(instance, record, found);
  const repository = found &&
    (beside.length > 0 ? found : { ...found, tree: undefined });
  const copy = requireCopy(instance, record);
  const { format, head } = readBase(instance, session);
  return await withScratch(
    instance,
    session,
    (scratch) =>
      perform(instance, changedResultSchema, scratch, {
        subject: `Cannot compare session "${session}"`,
        user: project,
        mounts: [
          copyMount(copy, true),
          ...(repository ? sourceMounts(repository) : []),
        ],
        work: {
          do: "changed",
          tree: inside.copy,
          format,
          source: repository ? sourceIn(repository) : null,
          base: head,
          scratch: inside.own,
        },
        log,
        limits: { timeoutMs, exceeded: (what) => new Failure("failed", what) },
      }),
  );
}

/** The sessions with a copy that can overlap with another one. */
export function comparable(records: Session[]): Comparable[] {
  return records.flatMap((record) => {
    const others = records.filter(({ name, project }) =>
      name !== record.name && project === record.project
    );
    if (!record.copy || others.length === 0) return [];
    const beside = others.filter(({ copy }) => !copy);
    return [{ record, beside: beside.map(({ name }) => name) }];
  });
}

interface Comparable {
  record: Session;
  /** Sessions that work in the project itself: the user's working tree is looked at too. */
  beside: string[];
}

/** The overlaps of sessions. One whose copy cannot be read is reported, and left out. */
export async function findOverlaps(
  instance: Instance,
  records: Session[],
  log: Log,
): Promise<Overlap[]> {
  const changed = new Map<string, Changed>();
  const waiting = comparable(records);
  const readNext = async (): Promise<void> => {
    for (let next = waiting.shift(); next; next = waiting.shift()) {
      try {
        const { name } = next.record;
        changed.set(name, await changedIn(instance, next, log));
      } catch (error) {
        log(`warning: ${messageOf(error)}`);
      }
    }
  };
  await Promise.all(Array.from({ length: atOnce }, readNext));
  return overlapsOf(records, changed);
}

const atOnce = 4;

/** Those of sessions whose changes are known. */
export function overlapsOf(
  records: Session[],
  changed: ReadonlyMap<string, Changed>,
): Overlap[] {
  const sorted = records.toSorted((a, b) => a.name < b.name ? -1 : 1);
  return sorted.flatMap((one, at) =>
    sorted.slice(at + 1)
      .filter(({ project }) => project === one.project)
      .map((other) => overlapOf(one, other, changed))
      .filter(({ sameDirectory, count }) => sameDirectory || count > 0)
  );
}

function overlapOf(
  one: Session,
  other: Session,
  changed: ReadonlyMap<string, Changed>,
): Overlap {
  const ofOne = changed.get(one.name);
  const ofOther = changed.get(other.name);
  const [first, second] = one.copy && other.copy
    ? [ofOne?.session, ofOther?.session]
    : one.copy
    ? [ofOne?.session, ofOne?.project]
    : [ofOther?.session, ofOther?.project];
  const others = new Set(second);
  const files = (first ?? []).filter((path) => others.has(path)).sort();
  return {
    sessions: [one.name, other.name],
    project: one.project,
    sameDirectory: !one.copy && !other.copy,
    files: files.slice(0, maxFiles),
    count: files.length,
  };
}

/** "a and b have both changed 3 files: x, y, z" */
export function overlapText(
  { sessions, project, sameDirectory, files, count }: Overlap,
): string {
  const names = sessions.join(" and ");
  if (sameDirectory) return `${names} work in the same directory: ${project}`;
  const shown = files.slice(0, maxShown).map(printable);
  if (count > shown.length) shown.push(`${count - shown.length} more`);
  return `${names} have both changed ${count} ${
    count === 1 ? "file" : "files"
  }: ${shown.join(", ")}`;
}

const maxShown = 5;
