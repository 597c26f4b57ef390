// Creates HAL9000_HOME's directories and the instance's volumes.

import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  realpathSync,
  statfsSync,
  statSync,
} from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { confTemplate } from "./config.ts";
import { inspectVolume } from "../docker/docker.ts";
import { Failure, fileFailure } from "../std/errors.ts";
import type { Instance } from "./instance.ts";
import { type instanceNames, label } from "./labels.ts";
import { inDirectory } from "../std/directory.ts";
import { ensureDirectory, ensureOwner, writeAtomic } from "../std/owned.ts";
import { recordedInstance, refuseForeignHome } from "./ownership.ts";
import { homeDirectories, type HomePaths } from "./paths.ts";

/** Creates missing directories, files and volumes. Idempotent. */
export async function ensureStorage(instance: Instance): Promise<void> {
  ensureHome(instance);
  const { home, owner } = instance;
  if (!existsSync(home.conf)) writeAtomic(home.conf, confTemplate(), owner);
  await ensureVolumes(instance);
}

export function ensureHome(
  { home, owner, prefix }: Pick<Instance, "home" | "owner" | "prefix">,
): void {
  checkHome(home);
  mkdirSync(dirname(home.home), { recursive: true });
  for (const directory of homeDirectories(home)) {
    // The directory of a volume; migrated data may have set its mode and its owner. Some
    // engines give an empty one to the user of the first container.
    if (directory === home.memorybank && existsSync(directory)) {
      if (readdirSync(directory).length === 0) ensureOwner(directory, owner);
      continue;
    }
    // Workers of any uid read the shared settings; the mode of the home keeps other users of
    // the host out.
    const shared = [home.claudeConfig, home.credentials, home.noCredentials]
      .includes(directory);
    const mode = shared ? 0o755 : modeFor(home, directory);
    // The home itself may be a link to another disk.
    const linked = directory === home.home && existsSync(directory);
    ensureDirectory(linked ? realpathSync(directory) : directory, mode, owner);
  }
  refuseForeignHome({ home, prefix });
  // A home belongs to one instance: two would use each other's records and parent state.
  if (recordedInstance(home) === undefined) {
    writeAtomic(home.instance, `${prefix}\n`, owner);
  }
}

/**
 * A Failure if the home is not writable; otherwise undefined. Changes nothing.
 */
export function unwritableHome(home: HomePaths): Failure | undefined {
  for (const path of [home.home, home.sessions, home.logs, home.run]) {
    const stat = statSync(path, { throwIfNoEntry: false });
    if (!stat) continue;
    try {
      // Deno's access() does not detect a read-only file system.
      chmodSync(path, stat.mode & 0o7777);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      return fileFailure({ code, path, syscall: "write" });
    }
    const { blocks, bavail } = statfsSync(path);
    if (blocks > 0 && bavail === 0) {
      return fileFailure({ code: "ENOSPC", path, syscall: "write" });
    }
  }
  return undefined;
}

/**
 * nsenter and the services run as other users in the owner's group. They connect to sockets
 * there, but cannot put others in their place.
 */
function modeFor(home: HomePaths, directory: string): number {
  const forGroup = [home.mcp, home.ways, home.services];
  return forGroup.includes(directory) ? 0o750 : 0o700;
}

/** Files that identify a home: of this version, created manually, of version 0.5. */
const markers = [
  "run/instance",
  "config/hal9000.conf",
  "chromadb",
  "membank",
  "claude/.shared-config",
];

/** Whether it is a backup's name of the original migrate-to-dind.sh, with local time. */
export function isOriginalBackup(name: string): boolean {
  return /^pre-dind-\d{8}-\d{6}$/.test(name);
}

/** Such backups may be all that is left of version 0.5. */
function hasOriginalBackup({ backups }: HomePaths): boolean {
  const names = inDirectory(
    backups,
    (opened) => [...opened.entries()].map(({ name }) => name),
  );
  return names?.some((name) =>
    isOriginalBackup(name) && existsSync(join(backups, name, "manifest.json"))
  ) ?? false;
}

/**
 * Throws an `unsafe` Failure for a directory with unrelated files: they would be
 * chmodded, and deleted by a clean.
 */
function checkHome(paths: HomePaths): void {
  const { home } = paths;
  const free = home === join(homedir(), ".hal9000") || !existsSync(home) ||
    markers.some((marker) => existsSync(join(home, marker))) ||
    hasOriginalBackup(paths);
  if (free || readdirSync(home).length === 0) return;
  throw new Failure("unsafe", `${home} contains unrelated files`, {
    hint: "Set HAL9000_HOME to an empty or new directory.",
  });
}

async function ensureVolumes(instance: Instance): Promise<void> {
  for (const name of Object.values(instance.names.volumes)) {
    await ensureVolume(instance, name);
  }
}

/**
 * Creates a volume with labels; Docker would create it without when it is mounted. `device` is
 * the directory of the engine's machine that it consists of, if that is in HAL9000_HOME.
 */
export async function ensureVolume(
  { docker, names, prefix, hostHome }: Instance,
  name: string,
  // MCP servers on the host and containers share the memory bank.
  device = name === names.volumes.memorybank ? hostHome.memorybank : undefined,
): Promise<void> {
  if (await inspectVolume(docker, name)) return;
  await docker.createVolume({
    Name: name,
    Labels: {
      [label.instance]: prefix,
      [label.home]: hostHome.home,
      [label.volume]: crypto.randomUUID(),
    },
    ...(device ? { DriverOpts: { type: "none", o: "bind", device } } : {}),
  });
}

/** A key of names.volumes. */
type VolumeKey = keyof ReturnType<typeof instanceNames>["volumes"];

export interface MovedPart {
  /** The directory in HAL9000_HOME of version 0.5. */
  name: string;
  volume: VolumeKey;
}

export const movedParts: readonly MovedPart[] = [
  { name: "chromadb", volume: "chromadb" },
  { name: "membank", volume: "memorybank" },
  { name: "plugins", volume: "plugins" },
];
