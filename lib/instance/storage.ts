// The directories and volumes of an instance, and how to remove them all.

import {
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  realpathSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { type Docker, inspectVolume } from "../docker/docker.ts";
import { hasProc } from "../std/proc.ts";
import { Failure, messageOf } from "../std/errors.ts";
import type { Instance } from "./instance.ts";
import { label } from "./labels.ts";
import { cacheKinds } from "./settings.ts";
import { refuseForeignInstance, withoutLinks } from "./ownership.ts";
import { homeDirectories, type HomePaths } from "./paths.ts";
import { movedParts } from "./volumes.ts";
import { measureTrees, removeTree } from "../std/remove-tree.ts";
import { waitFor } from "../std/wait.ts";

export interface StoredDirectory {
  path: string;
  /** Octal, as for chmod; null if the directory is missing. */
  mode: string | null;
  sizeBytes: number;
}

export interface StoredVolume {
  name: string;
  mountpoint: string | null;
  sizeBytes: number;
  /** Whether it was not created by this instance: it has the name but not the label. */
  foreign: boolean;
  /** Containers that use it. */
  usedBy: string[];
}

export interface StorageStatus {
  home: string;
  directories: StoredDirectory[];
  volumes: StoredVolume[];
}

export async function storageStatus(
  instance: Instance,
): Promise<StorageStatus> {
  const { home } = instance;
  const paths = topDirectories(instance).filter((path) => existsSync(path));
  const sizes = await measureTrees(paths);
  return {
    home: home.home,
    directories: topDirectories(instance).map((path) => {
      const stat = lstatSync(path, { throwIfNoEntry: false });
      return {
        path,
        mode: stat ? (stat.mode & 0o7777).toString(8) : null,
        sizeBytes: sizes.get(path) ?? 0,
      };
    }),
    volumes: await storedVolumes(instance),
  };
}

function topDirectories({ home }: Pick<Instance, "home">): string[] {
  return homeDirectories(home).filter((path) => dirname(path) === home.home);
}

/** The engine refuses the request while it answers another one. */
async function diskUsage(
  docker: Pick<Docker, "df">,
): Promise<DiskUsage> {
  return await waitFor(
    () =>
      (docker.df() as Promise<DiskUsage>).catch((error) => {
        if (/disk usage operation is already running/.test(messageOf(error))) {
          return undefined;
        }
        throw error;
      }),
    { for: "the engine's disk usage", timeoutMs: 60_000, everyMs: 100 },
  );
}

async function storedVolumes(
  { docker, names, prefix }: Pick<Instance, "docker" | "names" | "prefix">,
): Promise<StoredVolume[]> {
  const [usage, containers] = await Promise.all([
    diskUsage(docker),
    docker.listContainers({ all: true }),
  ]);
  const { Volumes } = await docker.listVolumes();
  const caches = cacheKinds.map(names.cache)
    .filter((name) => (Volumes ?? []).some(({ Name }) => Name === name));
  return await Promise.all(
    [...Object.values(names.volumes), ...caches].map(async (name) => {
      const volume = await inspectVolume(docker, name);
      const used = usage.Volumes?.find(({ Name }) => Name === name);
      return {
        name,
        mountpoint: volume?.Mountpoint ?? null,
        foreign: volume !== undefined &&
          volume.Labels?.[label.instance] !== prefix,
        sizeBytes: Math.max(used?.UsageData?.Size ?? 0, 0),
        usedBy: containers
          .filter(({ Mounts }) => Mounts.some(({ Name }) => Name === name))
          .map(({ Names }) => (Names[0] ?? "").slice(1)),
      };
    }),
  );
}

interface DiskUsage {
  Volumes: { Name: string; UsageData?: { Size: number } }[] | null;
}

/** What a clean removes: the volumes, and all directories except the backups. */
export interface CleanPlan {
  directories: StoredDirectory[];
  volumes: StoredVolume[];
}

/** Throws an `unsafe` or `busy` Failure if the instance cannot be removed safely. */
export async function planClean(instance: Instance): Promise<CleanPlan> {
  const { directories, volumes } = await checkClean(instance);
  const users = [...new Set(volumes.flatMap(({ usedBy }) => usedBy))];
  const containers = await instance.docker.listContainers({ all: true });
  for (const { Names, Mounts } of containers) {
    const name = (Names[0] ?? "").slice(1);
    const uses = Mounts.some(({ Source }) =>
      Source?.startsWith(`${instance.hostHome.home}/`) ||
      Source === instance.hostHome.home
    );
    if (uses && !users.includes(name)) users.push(name);
  }
  if (users.length > 0) {
    throw new Failure("busy", `Cannot clean: in use by ${users.join(", ")}`, {
      hint: "Stop them first: claudy stop --all, then claudy daemon stop",
    });
  }
  return {
    directories: directories.filter(({ path, mode }) =>
      mode !== null && path !== instance.home.backups
    ),
    volumes: volumes.filter(({ mountpoint }) => mountpoint !== null),
  };
}

/** The same checks, except whether the data is in use. Returns what there is. */
export async function checkClean(instance: Instance): Promise<StorageStatus> {
  const { home } = instance;
  if (existsSync(home.home) && !isHome(home)) {
    throw new Failure("unsafe", `${home.home} is not the home of an instance`, {
      hint: "HAL-9000 did not create its contents; remove it manually.",
    });
  }
  await refuseForeignInstance(instance, { all: true });
  if (existsSync(join(home.migration, "journal.json"))) {
    throw new Failure(
      "busy",
      "Cannot clean: a migration or rollback has not finished",
      {
        hint: "Finish it first: hal9000-migrate, or hal9000-rollback",
      },
    );
  }
  const status = await storageStatus(instance);
  for (const { name, foreign } of status.volumes) {
    if (!foreign) continue;
    throw new Failure("busy", `Volume "${name}" is not this instance's`, {
      hint: "Remove it manually, or set another HAL9000_PREFIX.",
    });
  }
  const [mounted] = mountPointsBelow(home.home);
  if (mounted !== undefined) {
    throw new Failure(
      "unsafe",
      `Cannot clean: another file system is mounted at "${mounted}"`,
      { hint: "Unmount it first." },
    );
  }
  return status;
}

/** Whether it is an instance's home, or what removeHome() has left of one. */
function isHome({ home, instance, run }: HomePaths): boolean {
  if (existsSync(instance)) return true;
  const rest = readdirSync(home).map((name) => join(home, name));
  return rest.every((path) => path === run && readdirSync(run).length === 0);
}

/**
 * Removes everything in the plan; links are removed, not followed. The file that names
 * the home's instance stays, because the backups still belong to that instance.
 */
export async function clean(
  { docker, home }: Pick<Instance, "docker" | "home">,
  plan: CleanPlan,
): Promise<void> {
  for (const { name } of plan.volumes) await docker.getVolume(name).remove();
  const paths = plan.directories.flatMap(({ path }) =>
    path === home.run
      ? readdirSync(path).map((name) => join(path, name))
      : [path]
  );
  for (const path of paths.filter((path) => path !== home.instance)) {
    await removeTree(path);
  }
}

/**
 * Removes all of HAL9000_HOME. The file that identifies it is removed last, so that a
 * second run can finish what a killed one began.
 */
export async function removeHome(
  { home, run, instance }: HomePaths,
): Promise<void> {
  if (!existsSync(home)) return;
  const inside = (directory: string) =>
    readdirSync(directory).map((name) => join(directory, name));
  const others = [
    ...inside(home).filter((path) => path !== run),
    ...(existsSync(run) ? inside(run) : []),
  ];
  for (const path of others.filter((path) => path !== instance)) {
    await removeTree(path);
  }
  const directory = realpathSync(home); // it may be a link to another disk
  await removeTree(run);
  await removeTree(directory);
  await removeTree(home);
}

/** Throws an `unsafe` Failure if the home contains entries that no HAL-9000 has created. */
export function refuseUnrelated(paths: HomePaths): void {
  const { home } = paths;
  if (!existsSync(home)) return;
  const known = Object.values(paths)
    .filter((path) => typeof path === "string" && dirname(path) === home)
    .map((path) => basename(path as string));
  known.push(...movedParts.map(({ name }) => name));
  const others = readdirSync(home).filter((name) => !known.includes(name));
  if (others.length === 0) return;
  throw new Failure(
    "unsafe",
    `Cannot delete ${home}: HAL-9000 did not create ${others.join(", ")} in it`,
    { hint: "Move that to another directory first, or delete it." },
  );
}

/** Mount points below a directory, in this process's mount namespace; none without a /proc. */
export function mountPointsBelow(path: string): string[] {
  if (!hasProc()) return [];
  const directory = withoutLinks(path); // as the kernel lists them
  return readFileSync("/proc/self/mountinfo", "utf8").split("\n")
    .map((line) => unescaped(line.split(" ")[4] ?? ""))
    .filter((path) => path.startsWith(`${directory}/`));
}

/** The kernel writes blanks as octal escapes, see proc_pid_mountinfo(5). */
function unescaped(path: string): string {
  return path.replace(
    /\\([0-7]{3})/g,
    (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)),
  );
}
