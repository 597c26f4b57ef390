// What is lost with a copy: what it has that was not fetched.

import type { Instance } from "../instance/instance.ts";
import { Failure } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { copyMount, readBase } from "./base.ts";
import { inside, perform } from "./container.ts";
import { withScratch } from "./exchange.ts";
import { Limits } from "./git/limits.ts";
import { packResultSchema } from "./git/pack.ts";
import { copyOf, filesText } from "./workspace.ts";

/** What a session's copy has that the user's repository does not have. */
export interface Unfetched {
  commits: number;
  changed: number;
  untracked: number;
}

/**
 * Also of a copy whose session is gone. What was fetched from the session `fetched` is not
 * counted either.
 */
export async function unfetchedIn(
  instance: Instance,
  { name, fetched = name }: { name: string; fetched?: string },
  log: Log,
): Promise<Unfetched> {
  const copy = copyOf(instance, name);
  const { format, head, known, fetchedTree } = readBase(instance, name);
  const other = fetched === name ? [] : readBase(instance, fetched).known;
  return await withScratch(
    instance,
    name,
    (scratch) =>
      perform(instance, packResultSchema, scratch, {
        subject: `Cannot read the copy of session "${name}"`,
        user: copy,
        mounts: [copyMount(copy, true)],
        work: {
          do: "pack",
          tree: inside.copy,
          format,
          known: [...known, ...other],
          changes: false,
          fetchedTree,
          scratch: inside.own,
          write: false,
          base: head,
        },
        log,
        limits: new Limits(),
      }),
  ).catch((error) => {
    if (!(error instanceof Failure) || error.kind !== "unsafe") throw error;
    throw new Failure("unsafe", error.message, {
      hint: `Fetch it with --max-size, or remove it: ` +
        `claudy sessions rm --force ${name}`,
      cause: error,
    });
  });
}

/** Throws if a session's copy has something alone, other than the `accepted` text. */
export async function refuseLoss(
  instance: Instance,
  session: { name: string; fetched?: string },
  log: Log,
  accepted = "",
): Promise<void> {
  const { name } = session;
  const lost = unfetchedText(await unfetchedIn(instance, session, log));
  if (lost === "" || lost === accepted) return;
  throw new Failure("unsafe", aloneText(name, lost), {
    hint: `Fetch them: claudy fetch --with-changes ${name}. ` +
      `Or remove them: claudy sessions rm --force ${name}`,
  });
}

export function aloneText(name: string, lost: string): string {
  return `Session "${name}" has in its copy alone: ${lost}`;
}

/** "2 commits, 1 untracked file"; "" for nothing. */
export function unfetchedText(
  { commits, changed, untracked }: Unfetched,
): string {
  return [
    ...(commits > 0
      ? [`${commits} ${commits === 1 ? "commit" : "commits"}`]
      : []),
    filesText(changed, untracked),
  ].filter((text) => text !== "").join(", ");
}
