// Package caches that workers share, if WORKER_CACHES names them. A worker can write anything into
// them, so only what a package manager downloads is in them. See ADR 48.

import type { Instance } from "../instance/instance.ts";
import { insideWorker } from "../instance/paths.ts";
import type { CacheKind } from "../instance/settings.ts";
import { ensureVolume } from "../instance/volumes.ts";
import type { Log } from "../std/log.ts";
import { ensureDirectory, type Owner } from "../std/owned.ts";

/** A cache as it is mounted in a worker. */
export interface PackageCache {
  volume: string;
  target: string;
  /** KEY=VALUE, by which the package manager uses it. */
  variable: string;
}

const { home } = insideWorker;

const places: Record<CacheKind, Omit<PackageCache, "volume">> = {
  // Not all of npm's cache: npx runs programs from _npx beside it without a check.
  npm: { target: `${home}/_cacache`, variable: `npm_config_cache=${home}` },
  // Not all of pip's cache: hashes in requirements are not compared with wheels that it has
  // built, beside it.
  pip: { target: `${home}/http-v2`, variable: `PIP_CACHE_DIR=${home}` },
  // Maven has no place for downloads alone. Processes lock its files since version 3.9.
  maven: {
    target: "/cache/maven",
    variable: "MAVEN_ARGS=-Dmaven.repo.local=/cache/maven " +
      "-Daether.syncContext.named.factory=file-lock " +
      "-Daether.syncContext.named.nameMapper=file-gav",
  },
};

export function packageCaches(
  { names }: Pick<Instance, "names">,
  kinds: readonly CacheKind[],
): PackageCache[] {
  return kinds.map((kind) => ({ volume: names.cache(kind), ...places[kind] }));
}

/** Creates the caches of the settings that are missing, for a worker with this user. */
export async function readyCaches(
  instance: Instance,
  user: Owner,
  log: Log,
): Promise<PackageCache[]> {
  const { owner, home, hostHome, names, settings } = instance;
  const kinds = settings.WORKER_CACHES;
  if (kinds.length === 0) return [];
  if (user.uid !== owner.uid) {
    log(
      "Without package caches: the project belongs to another user than HAL9000_HOME",
    );
    return [];
  }
  ensureDirectory(home.caches, 0o700, owner);
  await Promise.all(kinds.map(async (kind) => {
    ensureDirectory(home.cache(kind), 0o700, owner);
    await ensureVolume(instance, names.cache(kind), hostHome.cache(kind));
  }));
  return packageCaches(instance, kinds);
}
