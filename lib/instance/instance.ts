// An instance as seen by one command: its engine, settings, names and home. The command
// runs on the host, or inside the parent, where the paths differ.

import type { Docker } from "../docker/docker.ts";
import type { HostView } from "../std/hostpath.ts";
import type { Owner } from "../std/owned.ts";
import { type instanceNames, isOfInstance, parentFilter } from "./labels.ts";
import type { HomePaths } from "./paths.ts";
import type { UserPlaces } from "./protected.ts";
import type { Settings } from "./settings.ts";

export interface Instance {
  docker: Docker;
  settings: Settings;
  /** The path of the socket that commands of this machine use. */
  socket: string;
  prefix: string;
  names: ReturnType<typeof instanceNames>;
  /** HAL9000_HOME as a path of this program. */
  home: HomePaths;
  /** HAL9000_HOME as a path of the engine's machine, for mounts. */
  hostHome: HomePaths;
  owner: Owner;
  /** Places on the host that no worker may mount. */
  places: UserPlaces;
  /** The host's directories that this program can see. */
  host: HostView;
  /** Inside the parent, the parent's own container; otherwise undefined. */
  self: Docker.ContainerInfo | undefined;
}

type Search = Pick<Instance, "docker" | "settings" | "prefix" | "names">;

/**
 * The parent's container, running or not; undefined if there is none. The name is checked
 * as well as the labels, because any container of the parent's image has the labels.
 */
export async function findParent(
  { docker, settings, prefix, names }: Search,
): Promise<Docker.ContainerInfo | undefined> {
  const given = settings.HAL9000_PARENT;
  const containers = await docker.listContainers({
    all: true,
    ...(given ? {} : { filters: parentFilter }),
  });
  return containers.find(({ Names, Labels }) =>
    given ? Names.includes(`/${given}`) : Names.includes(`/${names.parent}`) &&
      isOfInstance(prefix, "parent", Labels)
  );
}
