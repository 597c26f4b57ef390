// Temporary directories of commands in the directories of copies, and what killed commands
// have left of them.

import { mkdirSync, rmdirSync } from "node:fs";
import { basename, join } from "node:path";
import { randomBytes } from "node:crypto";
import { inspectContainer, removeContainer } from "../docker/docker.ts";
import { helperName } from "../helper/helper.ts";
import type { Instance } from "../instance/instance.ts";
import { namesUpTo } from "../std/directory.ts";
import { isStale, keepFresh } from "../std/fresh.ts";
import { ensureDirectory } from "../std/owned.ts";
import { removeTree } from "../std/remove-tree.ts";

/** A temporary directory of one command; `id` is also that of its container. */
export interface Scratch {
  id: string;
  /** As a path of this program, and of the engine's machine. */
  path: string;
  hostPath: string;
  /** Removes it. Until then, no other command does. */
  remove: () => Promise<void>;
}

const scratchName = /^\.(?:making|reading)-([0-9a-f]{12})$/;

type Place = Pick<Instance, "home" | "hostHome" | "owner">;

/** Creates a temporary directory in that of a session's copy. */
export function makeScratch(
  { home, hostHome, owner }: Place,
  session: string,
  kind: "making" | "reading",
): Scratch {
  const id = randomBytes(6).toString("hex");
  const name = `.${kind}-${id}`;
  const path = join(home.workspace(session), name);
  ensureDirectory(path, 0o700, owner);
  const stopTouching = keepFresh(path);
  return {
    id,
    path,
    hostPath: join(hostHome.workspace(session), name),
    remove: async () => {
      stopTouching();
      await removeTree(path);
    },
  };
}

/**
 * Makes the directory of a new session's copy, for a command that makes the copy; undefined
 * if there is one. If nothing was put into it, it is removed with the temporary directory.
 */
export function reserve(instance: Place, session: string): Scratch | undefined {
  const { home, owner } = instance;
  ensureDirectory(home.workspaces, 0o700, owner);
  const path = home.workspace(session);
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    return undefined;
  }
  ensureDirectory(path, 0o700, owner);
  const scratch = makeScratch(instance, session, "making");
  return {
    ...scratch,
    remove: async () => {
      await scratch.remove();
      try {
        rmdirSync(path);
      } catch {
        // It has a copy, or was removed.
      }
    },
  };
}

type Engine = Pick<Instance, "docker" | "prefix" | "home">;

/**
 * The temporary directories that killed commands have left in the directory of a session's
 * copy, and whether another command works there.
 */
export async function findScratches(
  instance: Engine,
  session: string,
): Promise<{ busy: boolean; left: string[] }> {
  const left: string[] = [];
  let busy = false;
  for (const path of scratchesIn(instance, session)) {
    if (await isLeft(instance, path)) left.push(path);
    else busy = true;
  }
  return { busy, left };
}

/** Removes them, with their containers. Returns whether another command works there. */
export async function sweep(
  instance: Engine,
  session: string,
): Promise<boolean> {
  for (const path of scratchesIn(instance, session)) {
    if (!await isLeft(instance, path)) continue;
    await Promise.all(
      containersOf(instance, path).map((name) =>
        removeContainer(instance.docker, name)
      ),
    );
    await removeTree(path);
  }
  // Another command may have made one since.
  return scratchesIn(instance, session).length > 0;
}

function scratchesIn({ home }: Engine, session: string): string[] {
  const directory = home.workspace(session);
  return namesUpTo(Infinity, directory)
    .filter((name) => scratchName.test(name))
    .map((name) => join(directory, name));
}

/** The command touches it, unless it stands still while its container works. */
async function isLeft(instance: Engine, path: string): Promise<boolean> {
  const containers = await Promise.all(
    containersOf(instance, path).map((name) =>
      inspectContainer(instance.docker, name)
    ),
  );
  // After the answers, which can take a while.
  return isStale(path) &&
    !containers.some((container) => container?.State.Running);
}

/** Of the container that uses the directory after the first one. */
export const secondOf = (id: string) => `${id}-2`;

function containersOf(instance: Engine, path: string): string[] {
  const id = scratchName.exec(basename(path))?.[1] ?? "";
  return [id, secondOf(id)].map((id) => helperName(instance, id));
}
