// What is moved: the directories of version 0.5 and the volumes that they become.

import { join } from "node:path";
import { inspectVolume } from "../docker/docker.ts";
import type { Instance } from "../instance/instance.ts";
import { label } from "../instance/labels.ts";
import { movedParts } from "../instance/volumes.ts";

/** Sessions stay where they are; a backup has them too. */
export const sessionsPart = "claude";

/** Every directory of HAL9000_HOME that a backup may hold. */
export const backupParts = [
  ...movedParts.map(({ name }) => name),
  sessionsPart,
];

/** Where things are inside the mover. */
export const insideMover = {
  home: "/hal9000",
  local: (part: string) => `/hal9000/${part}`,
  volume: (part: string) => `/volumes/${part}`,
  /** What a move needs for itself. */
  work: (...names: string[]) => join("/hal9000/migration", ...names),
  backup: (backup: string, ...names: string[]) =>
    join("/hal9000/backups", backup, ...names),
} as const;

/** A tree that the mover works on. */
export interface Place {
  name: string;
  path: string;
}

/** Where each of the parts is by a function of its name. */
export function placesOf<Part extends { name: string }>(
  parts: Part[],
  path: (name: string) => string,
): (Part & Place)[] {
  return parts.map((part) => ({ ...part, path: path(part.name) }));
}

type Engine = Pick<Instance, "docker" | "names">;

/** The name of a part's volume; undefined for a part that has none. */
export function volumeOf(
  { names }: Pick<Instance, "names">,
  part: string,
): string | undefined {
  const moved = movedParts.find(({ name }) => name === part);
  return moved && names.volumes[moved.volume];
}

/** A part's volume, as it is in the mover. */
export interface PresentVolume extends Place {
  volume: string;
  /** Changes when it is removed and made again; "" for one that has none. */
  id: string;
}

/** The volumes that there are. */
export async function presentVolumes(
  { docker, names }: Engine,
): Promise<PresentVolume[]> {
  const present = await Promise.all(movedParts.map(async ({ name, volume }) => {
    const found = await inspectVolume(docker, names.volumes[volume]);
    if (!found) return [];
    const path = insideMover.volume(name);
    const id = found.Labels?.[label.volume] ?? "";
    return [{ name, path, volume: found.Name, id }];
  }));
  return present.flat();
}
