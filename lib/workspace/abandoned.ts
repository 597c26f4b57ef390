// Finds and removes what killed commands have left of copies, and finds copies whose session
// is gone.

import { existsSync } from "node:fs";
import { join, relative, sep } from "node:path";
import type { Instance } from "../instance/instance.ts";
import { readSession } from "../instance/session-record.ts";
import { inDirectory } from "../std/directory.ts";
import { isStale } from "../std/fresh.ts";
import { removeTree } from "../std/remove-tree.ts";
import { thawAbandoned } from "./frozen.ts";
import { findScratches, sweep } from "./scratch.ts";
import { removeCopy } from "./workspace.ts";

/** Removes what killed commands have left. */
export async function sweepCopies(instance: Instance): Promise<void> {
  await thawAbandoned(instance);
  for (const name of namesIn(instance)) await sweepEntry(instance, name);
}

async function sweepEntry(instance: Instance, name: string): Promise<void> {
  if (isRemoved(name)) {
    await removeTree(join(instance.home.workspaces, name));
  } else if (!name.startsWith(".")) await sweepCopy(instance, name);
}

/**
 * A copy whose session was not saved is removed. One whose session was lost in another way is
 * kept: it has a Claude home.
 */
export async function sweepCopy(
  instance: Instance,
  session: string,
): Promise<void> {
  // Before the sweep, which changes its time.
  const isYoung = isNew(instance, session);
  const busy = await sweep(instance, session);
  if (busy || isYoung || isKept(instance, session)) return;
  await removeCopy(instance, session);
}

/** Paths of what sweepCopies() would remove. */
export async function findAbandoned(instance: Instance): Promise<string[]> {
  const { home } = instance;
  const paths: string[] = [];
  for (const name of namesIn(instance)) {
    if (isRemoved(name)) paths.push(join(home.workspaces, name));
    if (name.startsWith(".")) continue;
    const { busy, left } = await findScratches(instance, name);
    const stays = busy || isNew(instance, name) || isKept(instance, name);
    paths.push(...(stays ? left : [home.workspace(name)]));
  }
  return paths;
}

/** Removes one of them, unless it has come into use. */
export async function removeAbandoned(
  instance: Instance,
  path: string,
): Promise<void> {
  const [name = ""] = relative(instance.home.workspaces, path).split(sep);
  await sweepEntry(instance, name);
}

/** Names of sessions that are gone and have left a copy. */
export function findOrphans(instance: Instance): string[] {
  const { home } = instance;
  return namesIn(instance).filter((name) =>
    !name.startsWith(".") && isKept(instance, name) &&
    !readSession(instance, name) && existsSync(home.workspaceTree(name))
  );
}

function namesIn({ home }: Pick<Instance, "home">): string[] {
  return inDirectory(
    home.workspaces,
    (directory) =>
      [...directory.entries()].filter(({ kind }) => kind === "directory")
        .map(({ name }) => name),
  ) ?? [];
}

const isRemoved = (name: string) => /^\.removed-[0-9a-f]{12}$/.test(name);

/** A command may put something into it right now. */
const isNew = ({ home }: Pick<Instance, "home">, session: string) =>
  !isStale(home.workspace(session));

function isKept(instance: Instance, session: string): boolean {
  return readSession(instance, session) !== undefined ||
    existsSync(join(instance.home.claude, session));
}
