// What is moved: the directories of version 0.5 and the volumes that they become.

import { inspectVolume } from "../docker/docker.ts";
import { statusOf } from "../docker/docker-errors.ts";
import type { Instance } from "../instance/instance.ts";
import { label } from "../instance/labels.ts";
import { movedParts } from "../instance/volumes.ts";
import { waitFor } from "../std/wait.ts";

export const movedNames = movedParts.map(({ name }) => name);

/** Sessions stay where they are; a backup has them too. */
export const sessionsPart = "claude";

/** Every directory of HAL9000_HOME that a backup may hold. */
export const backupParts = [...movedNames, sessionsPart];

/** The name of a part's volume; undefined for a part that has none. */
export function volumeOf(
  { names }: Pick<Instance, "names">,
  part: string,
): string | undefined {
  const moved = movedParts.find(({ name }) => name === part);
  return moved && names.volumes[moved.volume];
}

export interface PresentVolume {
  /** The part's. */
  name: string;
  volume: string;
  /** Changes when it is removed and made again; "" for one that has none. */
  id: string;
}

/** The volumes that there are. */
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

/** Removes volumes; a container that has ended may hold them longer than its name. */
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
