// The parts of a move: the directories of version 0.5, and their volumes.

import { inspectVolume } from "../docker/docker.ts";
import { statusOf } from "../docker/docker-errors.ts";
import type { Instance } from "../instance/instance.ts";
import { label } from "../instance/labels.ts";
import { movedParts } from "../instance/volumes.ts";
import { waitFor } from "../std/wait.ts";

export const movedNames = movedParts.map(({ name }) => name);

/** Sessions are not moved, only backed up. */
export const sessionsPart = "claude";

/** All directories of HAL9000_HOME that a backup may contain. */
export const backupParts = [...movedNames, sessionsPart];

/** The volume of a part; undefined if it has none. */
export function volumeOf(
  { names }: Pick<Instance, "names">,
  part: string,
): string | undefined {
  const moved = movedParts.find(({ name }) => name === part);
  return moved && names.volumes[moved.volume];
}

export interface PresentVolume {
  /** Name of the part. */
  name: string;
  volume: string;
  /** Changes when the volume is recreated; "" if it has no id. */
  id: string;
}

/** The existing volumes. */
export async function presentVolumes(
  { docker, names }: Pick<Instance, "docker" | "names">,
): Promise<PresentVolume[]> {
  const present = await Promise.all(movedParts.map(async ({ name, volume }) => {
    const found = await inspectVolume(docker, names.volumes[volume]);
    const id = found?.Labels?.[label.volume] ?? "";
    return found ? [{ name, volume: found.Name, id }] : [];
  }));
  return present.flat();
}

/**
 * Removes volumes. Retries, as a removed container may hold its volumes a little
 * longer.
 */
export async function removeVolumes(
  { docker }: Pick<Instance, "docker">,
  volumes: string[],
): Promise<void> {
  for (const volume of volumes) {
    await waitFor(async () => {
      try {
        await docker.getVolume(volume).remove();
        return true;
      } catch (error) {
        if (statusOf(error) !== 409) throw error;
        return false;
      }
    }, {
      for: `volume ${volume} to be free`,
      timeoutMs: 10_000,
      everyMs: 100,
      hint: `See what uses it: docker ps --all --filter volume=${volume}`,
    });
  }
}
