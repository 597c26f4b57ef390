// HAL9000_HOME's directories and the instance's volumes.

import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { inspectVolume } from "./docker.ts";
import type { Instance } from "./instance.ts";
import { label } from "./labels.ts";
import { ensureDirectory } from "./owned.ts";
import { homeDirectories } from "./paths.ts";

export interface VolumeState {
  name: string;
  mountpoint: string;
}

/** Makes what is missing, and tells the volumes. Twice changes nothing. */
export async function ensureStorage(
  instance: Instance,
): Promise<VolumeState[]> {
  ensureHome(instance);
  return await ensureVolumes(instance);
}

export function ensureHome({ home, owner }: Instance): void {
  mkdirSync(dirname(home.home), { recursive: true });
  for (const directory of homeDirectories(home)) {
    // Workers read the shared settings whoever owns their project; the home
    // above keeps everyone else out.
    const mode = directory === home.claudeConfig ? 0o755 : 0o700;
    ensureDirectory(directory, mode, owner);
  }
}

async function ensureVolumes(instance: Instance): Promise<VolumeState[]> {
  const { docker, names, prefix, hostHome } = instance;
  const states: VolumeState[] = [];
  for (const [kind, name] of Object.entries(names.volumes)) {
    if (!await inspectVolume(docker, name)) {
      await docker.createVolume({
        Name: name,
        Labels: { [label.instance]: prefix },
        // Host MCP servers and containers see the same memory bank.
        ...(kind === "memorybank"
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
    const volume = await docker.getVolume(name).inspect();
    states.push({ name, mountpoint: volume.Mountpoint });
  }
  return states;
}
