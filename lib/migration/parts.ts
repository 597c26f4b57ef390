// What is moved: the directories of version 0.5 and the volumes that they become.

import { join } from "node:path";
import type { Instance } from "../instance/instance.ts";
import { type MovedPart, movedParts } from "../instance/volumes.ts";

/** Sessions stay where they are; a backup has them too. */
export const sessionsPart = "claude";

/** Every directory of HAL9000_HOME that a backup may hold. */
export const backupParts = [
  ...movedParts.map(({ name }) => name),
  sessionsPart,
];

export function volumeOf(
  { names }: Pick<Instance, "names">,
  part: MovedPart,
): string {
  return names.volumes[part.volume];
}

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
