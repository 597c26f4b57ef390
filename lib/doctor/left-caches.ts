// Package caches that can be removed: those that no container uses.

import { statusOf } from "../docker/docker-errors.ts";
import type { Instance } from "../instance/instance.ts";
import { type CacheKind, cacheKinds } from "../instance/settings.ts";
import { inDirectory } from "../std/directory.ts";
import { removeTree } from "../std/remove-tree.ts";
import { megabytes } from "../std/units.ts";

/** The caches that are not empty. */
export function filledCaches({ home }: Pick<Instance, "home">): CacheKind[] {
  return cacheKinds.filter((kind) =>
    inDirectory(
      home.cache(kind),
      (directory) => !directory.entries().next().done,
    )
  );
}

/** Why a cache is not removed; undefined if the user asks for it and no container uses it. */
export async function reasonToKeepCache(
  { docker, names }: Pick<Instance, "docker" | "names">,
  { name, sizeBytes }: { name: string; sizeBytes: number | null },
  { caches }: { caches: boolean },
): Promise<string | undefined> {
  const what = sizeBytes === null
    ? `the package cache of ${name}`
    : `the package cache of ${name}, ${megabytes(sizeBytes)}`;
  if (!caches) return `${what}: --caches removes it`;
  const volume = names.cache(name);
  const users = (await docker.listContainers({ all: true }))
    .filter(({ Mounts }) => Mounts.some(({ Name }) => Name === volume))
    .map(({ Names }) => (Names[0] ?? "").slice(1));
  return users.length === 0
    ? undefined
    : `${what}: used by ${users.join(", ")}`;
}

/** Throws if a container uses it by now. */
export async function removeCache(
  { docker, home, names }: Pick<Instance, "docker" | "home" | "names">,
  kind: string,
): Promise<void> {
  try {
    await docker.getVolume(names.cache(kind)).remove();
  } catch (error) {
    // Only its directory was left.
    if (statusOf(error) !== 404) throw error;
  }
  await removeTree(home.cache(kind));
}
