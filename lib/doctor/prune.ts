// Finds and removes what an instance leaves behind over time.

import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { inDirectory } from "../std/directory.ts";
import { type Docker, listImages } from "../docker/docker.ts";
import type { Instance } from "../instance/instance.ts";
import { label } from "../instance/labels.ts";
import { messageOf } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { ownKinds } from "../image/tags.ts";
import { readJournal } from "../instance/migration-journal.ts";
import { readMigrated } from "../migration/migrated.ts";
import { readRecords } from "../instance/record.ts";
import { measureTrees, removeTree } from "../std/remove-tree.ts";
import { removeSession } from "../session/session.ts";
import { readSessions } from "../instance/session-record.ts";
import { listWorkers } from "../worker/workers.ts";
import { filledCaches, reasonToKeepCache, removeCache } from "./left-caches.ts";
import { leftCopies, reasonToKeep, removeLeftCopy } from "./left-copies.ts";

export interface Leftover {
  kind:
    | "log"
    | "record"
    | "home"
    | "backup"
    | "image"
    | "session"
    | "copy"
    | "cache";
  /** A path, an image's id or name, or the name of a session or of a package manager. */
  name: string;
  /** What is freed; null if that takes too long to measure. */
  sizeBytes: number | null;
}

export interface PruneOptions {
  olderThanMs: number;
  /**
   * Also sessions that have not been opened for this long, with their
   * conversations.
   */
  sessions: boolean;
  /** Also package caches that no container uses. */
  caches: boolean;
  /** Also image names with the prefix of an instance that no longer exists. */
  allInstances: boolean;
}

/**
 * Finds what can be removed; removes nothing. Logs which copies are kept because something
 * in them was not fetched.
 */
export async function findLeftovers(
  instance: Instance,
  options: PruneOptions,
  log: Log,
): Promise<Leftover[]> {
  const { home } = instance;
  const located = await locate(instance, options);
  const directoriesOf = ({ kind, name }: Leftover) =>
    kind === "session"
      ? [join(home.claude, name), home.workspace(name)]
      : [kind === "cache" ? home.cache(name) : name];
  const unmeasured = located.filter(({ kind }) =>
    ["home", "backup", "session", "copy", "cache"].includes(kind)
  );
  const sizes = await measureTrees(unmeasured.flatMap(directoriesOf));
  for (const leftover of unmeasured) {
    const parts = directoriesOf(leftover).filter((path) => existsSync(path))
      .map((path) => sizes.get(path));
    leftover.sizeBytes = parts.reduce<number | null>(
      (sum, size) => sum === null || size === undefined ? null : sum + size,
      0,
    );
  }
  const found: Leftover[] = [];
  for (const leftover of located) {
    const reason = await reasonOf(instance, leftover, options, log);
    if (reason === undefined) found.push(leftover);
    else log(`Kept: ${reason}`);
  }
  return found;
}

/** Why it is not removed. */
function reasonOf(
  instance: Instance,
  leftover: Leftover,
  options: PruneOptions,
  log: Log,
): Promise<string | undefined> {
  return leftover.kind === "cache"
    ? reasonToKeepCache(instance, leftover, options)
    : reasonToKeep(instance, leftover, log);
}

/** The same, without the sizes of directories. */
async function locate(
  instance: Instance,
  { olderThanMs, sessions, allInstances }: PruneOptions,
): Promise<Leftover[]> {
  const { home } = instance;
  const before = Date.now() - olderThanMs;
  const files = (kind: Leftover["kind"], directory: string) =>
    entriesOf(directory).filter(({ mtimeMs, isFile }) =>
      isFile && mtimeMs < before
    ).map(({ path, sizeBytes }) => ({ kind, name: path, sizeBytes }));
  return [
    ...files("log", home.logs),
    ...files("record", home.ended),
    ...files("record", home.damaged),
    ...workerHomes(instance, before),
    // During a move, a backup may hold the only copy of the data.
    ...(readJournal(instance) ? [] : backups(instance, before)),
    ...await images(instance, before),
    ...(allInstances ? await othersImages(instance, before) : []),
    ...(await leftCopies(instance, before)).map((name) => ({
      kind: "copy" as const,
      name,
      sizeBytes: 0,
    })),
    ...(sessions ? await oldSessions(instance, before) : []),
    ...filledCaches(instance).map((name) => ({
      kind: "cache" as const,
      name,
      sizeBytes: 0,
    })),
  ];
}

interface Entry {
  path: string;
  mtimeMs: number;
  sizeBytes: number;
  isFile: boolean;
}

/** Enough for one listing; the next prune finds the rest. */
const maxEntries = 20_000;

function entriesOf(directory: string): Entry[] {
  return inDirectory(directory, (opened) => {
    const entries: Entry[] = [];
    for (const { name } of opened.entries()) {
      if (entries.length >= maxEntries) break;
      const stat = opened.stat(name);
      if (!stat) continue; // it was just removed
      const { mtimeMs, sizeBytes, kind } = stat;
      const path = join(directory, name);
      entries.push({ path, mtimeMs, sizeBytes, isFile: kind === "file" });
    }
    return entries;
  }) ?? [];
}

/** Claude homes of ended workers without a session. */
function workerHomes(instance: Instance, before: number): Leftover[] {
  const records = readRecords(instance);
  const used = new Set(records.map(({ home }) => basename(home)));
  return entriesOf(instance.home.workers)
    .filter(({ path, mtimeMs }) =>
      !used.has(basename(path)) && mtimeMs < before
    )
    .map(({ path }) => ({ kind: "home", name: path, sizeBytes: 0 }));
}

/** All but the newest backup, and the one of a migration whose source still exists. */
function backups(instance: Instance, before: number): Leftover[] {
  const wanted = readMigrated(instance)?.backup;
  return entriesOf(instance.home.backups)
    .sort((a, b) => b.mtimeMs - a.mtimeMs).slice(1)
    .filter(({ path, mtimeMs }) => mtimeMs < before && path !== wanted)
    .map(({ path }) => ({ kind: "backup", name: path, sizeBytes: 0 }));
}

/** An untagged image may belong to a running build, of any instance, for this long. */
const buildMs = 60 * 60_000;

/**
 * Untagged images of this project, and the instance's own profile images, which are
 * rebuilt on demand.
 */
async function images(
  { docker, prefix }: Pick<Instance, "docker" | "prefix">,
  before: number,
): Promise<Leftover[]> {
  const references = ownKinds.map((kind) => `${prefix}-${kind}`);
  const [untagged, profiles] = await Promise.all([
    { dangling: ["true"], label: [label.inputs] },
    { reference: references },
  ].map((filters) => listImages(docker, { filters })));
  const containers = await docker.listContainers({ all: true });
  const built = Math.min(before, Date.now() - buildMs);
  const own = new Map(
    [
      ...(untagged ?? []).filter(unusedBy(containers, built)),
      ...(profiles ?? []).filter(unusedBy(containers, before)),
    ].map((image) => [image.Id, image]),
  );
  return [...own.values()].map(({ Id, Size }) => ({
    kind: "image",
    name: Id,
    sizeBytes: Size,
  }));
}

/** Image names of instances that have no containers and no volumes. */
async function othersImages(
  { docker, prefix, settings }: Pick<
    Instance,
    "docker" | "prefix" | "settings"
  >,
  before: number,
): Promise<Leftover[]> {
  const containers = await docker.listContainers({ all: true });
  const { Volumes } = await docker.listVolumes();
  const live = [...containers, ...Volumes].map(({ Labels }) =>
    Labels?.[label.instance]
  );
  const repositories = [prefix, settings.HAL9000_IMAGE_REPO, ...live];
  const labelled = await listImages(docker, {
    filters: { label: [label.inputs] },
  });
  return labelled.filter(unusedBy(containers, before))
    .flatMap((image) => orphanedNames(image, repositories));
}

function unusedBy(containers: Docker.ContainerInfo[], before: number) {
  const used = new Set(containers.map(({ ImageID }) => ImageID));
  return ({ Id, Created }: Docker.ImageInfo) =>
    !used.has(Id) && Created * 1000 < before;
}

/** An instance's image repository: its prefix, with an optional kind. */
const repositoryPattern = new RegExp(
  `^([a-z][a-z0-9-]{0,40}?)(?:-(?:${ownKinds.join("|")}))?$`,
);

/**
 * The names of an image with the prefix of an instance that has no containers and
 * no volumes. Names with a registry are never included.
 */
export function orphanedNames(
  { RepoTags, Size }: Pick<Docker.ImageInfo, "RepoTags" | "Size">,
  live: readonly (string | undefined)[],
): Leftover[] {
  const names = RepoTags ?? [];
  const orphaned = names.filter((name) => {
    const repository = name.slice(0, name.lastIndexOf(":"));
    const [, prefix] = repositoryPattern.exec(repository) ?? [];
    return prefix !== undefined && !live.includes(prefix) &&
      !live.includes(repository);
  });
  // The layers are deleted with the last name.
  const last = orphaned.length === names.length ? orphaned.length - 1 : -1;
  return orphaned.map((name, index) => ({
    kind: "image",
    name,
    sizeBytes: index === last ? Size : 0,
  }));
}

async function oldSessions(
  instance: Instance,
  before: number,
): Promise<Leftover[]> {
  const live = new Set(
    (await listWorkers(instance)).map(({ session }) => session),
  );
  return readSessions(instance)
    .filter(({ name, usedAt }) =>
      !live.has(name) && Date.parse(usedAt) < before
    )
    .map(({ name }) => ({ kind: "session", name, sizeBytes: 0 }));
}

/**
 * Removes the leftovers, except what has come into use since it was found; returns the
 * removed ones, and why others could not be.
 */
export async function removeLeftovers(
  instance: Instance,
  leftovers: Leftover[],
  options: PruneOptions,
  log: Log,
): Promise<{ removed: Leftover[]; errors: string[] }> {
  const removed: Leftover[] = [];
  const errors: string[] = [];
  for (const leftover of leftovers) {
    const { kind, name } = leftover;
    try {
      if (["session", "home", "copy", "cache"].includes(kind)) {
        const now = await locate(instance, options);
        const isLeft = now.some((other) =>
          other.kind === kind && other.name === name
        ) && await reasonOf(instance, leftover, options, log) === undefined;
        if (!isLeft) {
          log(`In use again: ${kind} ${name}`);
          continue;
        }
      }
      if (kind === "image") await instance.docker.getImage(name).remove();
      else if (kind === "session") await removeSession(instance, name, log);
      else if (kind === "copy") await removeLeftCopy(instance, name);
      else if (kind === "cache") await removeCache(instance, name);
      else await removeTree(name);
      removed.push(leftover);
    } catch (error) {
      errors.push(`Cannot remove ${kind} ${name}: ${messageOf(error)}`);
    }
  }
  return { removed, errors };
}
