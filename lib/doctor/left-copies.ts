// Which copies of projects can be removed: none that has something that was not fetched.

import { existsSync, lstatSync } from "node:fs";
import { basename } from "node:path";
import type { Instance } from "../instance/instance.ts";
import { messageOf } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { megabytes } from "../std/units.ts";
import { listWorkers } from "../worker/workers.ts";
import {
  findAbandoned,
  findOrphans,
  removeAbandoned,
} from "../workspace/abandoned.ts";
import { removeCopy } from "../workspace/workspace.ts";

/** Paths of what killed commands have left, and of copies that old whose session is gone. */
export async function leftCopies(
  instance: Instance,
  before: number,
): Promise<string[]> {
  const { home } = instance;
  const orphans = findOrphans(instance);
  const live = orphans.length === 0
    ? []
    : (await listWorkers(instance)).map(({ session }) => session);
  const old = orphans.filter((name) => {
    // Each look at the copy changes the time of the directory.
    const base = lstatSync(home.workspaceBase(name), { throwIfNoEntry: false });
    return base && base.mtimeMs < before && !live.includes(name);
  }).map((name) => home.workspace(name));
  return [...await findAbandoned(instance), ...old];
}

/** Why a copy, or a session with one, is not removed; undefined if nothing would be lost. */
export async function reasonToKeep(
  instance: Instance,
  { kind, name, sizeBytes }: {
    kind: string;
    name: string;
    sizeBytes: number | null;
  },
  log: Log,
): Promise<string | undefined> {
  const session = kind === "session" ? name : orphanAt(instance, name);
  if (session === undefined) return undefined;
  if (!existsSync(instance.home.workspaceTree(session))) return undefined;
  const size = sizeBytes === null ? "" : `, ${megabytes(sizeBytes)}`;
  const what = kind === "session"
    ? `session ${name}${size}`
    : `${name}${size}, whose session is gone`;
  // Loaded for those who have copies.
  const { unfetchedIn, unfetchedText } = await import(
    "../workspace/unfetched.ts"
  );
  try {
    const left = await unfetchedIn(instance, { name: session }, log);
    const lost = unfetchedText(left);
    return lost === "" ? undefined : `${what}: its copy alone has ${lost}`;
  } catch (error) {
    return `${what}: ${messageOf(error)}`;
  }
}

/** Removes it unless it has come into use. */
export async function removeLeftCopy(
  instance: Instance,
  path: string,
): Promise<void> {
  const orphan = orphanAt(instance, path);
  if (orphan === undefined) await removeAbandoned(instance, path);
  else await removeCopy(instance, orphan);
}

function orphanAt(instance: Instance, path: string): string | undefined {
  const name = basename(path);
  return path === instance.home.workspace(name) &&
      findOrphans(instance).includes(name)
    ? name
    : undefined;
}
