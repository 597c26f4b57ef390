// What fetch, diff and pull share: the two sides of a session's copy, and a directory between
// them. One container reads the one side and makes a pack, another one examines it and gives
// it to the other side.

import type { Instance } from "../instance/instance.ts";
import type { SessionRecord } from "../instance/session-record.ts";
import { resolveProject } from "../project/project.ts";
import { Failure } from "../std/errors.ts";
import type { HostPath } from "../std/hostpath.ts";
import { type Base, readBase, requireOwner, writeBase } from "./base.ts";
import { type Repository, repositoryOf } from "./repository.ts";
import { makeScratch, type Scratch, sweep } from "./scratch.ts";

/** Calls `act` with a temporary directory of the session's copy. */
export async function withScratch<T>(
  instance: Instance,
  session: string,
  act: (scratch: Scratch) => Promise<T>,
): Promise<T> {
  await sweep(instance, session);
  const scratch = makeScratch(instance, session, "reading");
  try {
    return await act(scratch);
  } finally {
    await scratch.remove();
  }
}

export async function projectOf(
  instance: Instance,
  { project: path }: Pick<SessionRecord, "project">,
): Promise<HostPath> {
  return await resolveProject(instance, {
    path,
    cwd: "/",
    as: "project",
    allowAny: true,
  });
}

export async function userRepository(
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
export function requireSameRepository(
  instance: Instance,
  { name, project }: Pick<SessionRecord, "name" | "project">,
  { outside, common }: Repository,
): void {
  if (!outside || readBase(instance, name).outside === common.path) return;
  throw new Failure(
    "unsafe",
    `${project} is now a part of ${common.path}, and was not when it was copied`,
    { hint: "See what its .git file contains." },
  );
}

/**
 * Calls `attempt` with the commits that both sides have had, and once more without, since one
 * of them may have removed some.
 */
export async function withKnown<T>(
  { known }: Pick<Base, "known">,
  attempt: (known: string[]) => Promise<T>,
): Promise<T> {
  return await attempt(known).catch((error) => {
    const again = error instanceof Failure && error.kind === "failed" &&
      known.length > 0;
    return again ? attempt([]) : Promise.reject(error);
  });
}

/** Stores what both sides have now. */
export function remember(
  instance: Instance,
  session: string,
  ids: string[],
  change: Partial<Base> = {},
): void {
  const base = readBase(instance, session);
  const known = [...new Set([...base.known, ...ids])].slice(-maxKnown);
  writeBase(instance, session, { ...base, known, ...change });
}

/** Later ones are more likely to be useful. */
const maxKnown = 20_000;
