// HAL9000_HOME's directories and the instance's volumes.

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
import { ensureDirectory, writeAtomic } from "../std/owned.ts";
import { recordedInstance, refuseForeignHome } from "./ownership.ts";
import { homeDirectories, type HomePaths } from "./paths.ts";

/** Makes what is missing. Twice changes nothing. */
export async function ensureStorage(instance: Instance): Promise<void> {
  ensureHome(instance);
  const { home, owner } = instance;
  if (!existsSync(home.conf)) writeAtomic(home.conf, confTemplate(), owner);
  await ensureVolumes(instance);
}

export function ensureHome({ home, owner, prefix }: Instance): void {
  checkHome(home);
  mkdirSync(dirname(home.home), { recursive: true });
  for (const directory of homeDirectories(home)) {
    // It is a volume's, whose mode may be that of what was migrated into it.
    if (directory === home.memorybank && existsSync(directory)) continue;
    // Workers read the shared settings whoever owns their project; the home
    // above keeps everyone else out.
    const shared = [home.claudeConfig, home.credentials].includes(directory);
    const mode = shared ? 0o755 : modeFor(home, directory);
    // The home itself may be a link to where there is room.
    const linked = directory === home.home && existsSync(directory);
    ensureDirectory(linked ? realpathSync(directory) : directory, mode, owner);
  }
  refuseForeignHome({ home, prefix });
  // One home serves one instance: two would take each other's records and the
  // word of the other's parent for their own.
  if (recordedInstance(home) === undefined) {
    writeAtomic(home.instance, `${prefix}\n`, owner);
  }
}

/**
 * Why nothing can be written to a home, undefined where something can. Nothing in it
 * changes.
 */
export function unwritableHome(home: HomePaths): Failure | undefined {
  for (const path of [home.home, home.sessions, home.logs, home.run]) {
    const stat = statSync(path, { throwIfNoEntry: false });
    if (!stat) continue;
    try {
      // access(2) as Deno has it knows nothing of a read-only file system.
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

/** The forwarder is a user of its own, in the owner's group. */
function modeFor({ mcp, ways }: HomePaths, directory: string): number {
  return directory === ways ? 0o770 : directory === mcp ? 0o750 : 0o700;
}

/** Signs of a home: of this version, laid out by hand, of version 0.5. */
const signs = ["run/instance", "config/hal9000.conf", "chromadb", "membank"];

/**
 * Throws an `unsafe` Failure for a directory that is somebody's already: what is
 * in it would get our modes, and go with a clean.
 */
function checkHome({ home }: HomePaths): void {
  const free = home === join(homedir(), ".hal9000") || !existsSync(home) ||
    signs.some((sign) => existsSync(join(home, sign)));
  if (free || readdirSync(home).length === 0) return;
  throw new Failure("unsafe", `${home} holds what is not HAL-9000's`, {
    hint:
      "Set HAL9000_HOME to an empty directory, or to one that is not there.",
  });
}

async function ensureVolumes(instance: Instance): Promise<void> {
  for (const name of Object.values(instance.names.volumes)) {
    await ensureVolume(instance, name);
  }
}

/** A container that mounts one makes it, too, but without our label. */
export async function ensureVolume(
  { docker, names, prefix, hostHome }: Instance,
  name: string,
): Promise<void> {
  if (await inspectVolume(docker, name)) return;
  await docker.createVolume({
    Name: name,
    Labels: {
      [label.instance]: prefix,
      [label.home]: hostHome.home,
      [label.volume]: crypto.randomUUID(),
    },
    // Host MCP servers and containers see the same memory bank.
    ...(name === names.volumes.memorybank
      ? {
        DriverOpts: {
          type: "none",
          o: "bind",
          device: hostHome.memorybank,
        },
      }
      : {}),
  });
}

/** By a name of ours. */
type VolumeKey = keyof ReturnType<typeof instanceNames>["volumes"];

export interface MovedPart {
  /** Of HAL9000_HOME, as version 0.5 has it. */
  name: string;
  volume: VolumeKey;
}

export const movedParts: readonly MovedPart[] = [
  { name: "chromadb", volume: "chromadb" },
  { name: "membank", volume: "memorybank" },
  { name: "plugins", volume: "plugins" },
];
