// An instance as one command sees it: its engine, settings, names and home,
// from the host or from inside the parent, where the host's paths differ.

import type { Docker } from "../docker/docker.ts";
import type { HostView } from "../std/hostpath.ts";
import type { Owner } from "../std/owned.ts";
import { instanceFilter, type instanceNames } from "./labels.ts";
import type { HomePaths } from "./paths.ts";
import type { UserPlaces } from "./protected.ts";
import type { Settings } from "./settings.ts";

export interface Instance {
  docker: Docker;
  settings: Settings;
  /** The engine's socket, on the engine's machine. */
  socket: string;
  prefix: string;
  names: ReturnType<typeof instanceNames>;
  /** HAL9000_HOME as this program reaches it. */
  home: HomePaths;
  /** HAL9000_HOME as the engine knows it, for the source of a mount. */
  hostHome: HomePaths;
  owner: Owner;
  /** What of the host no worker is given. */
  places: UserPlaces;
  /** The host's directories, as far as this program can look at them. */
  host: HostView;
  /** Inside the parent: the parent's own container. */
  self: Docker.ContainerInfo | undefined;
}

type Search = Pick<Instance, "docker" | "settings" | "prefix" | "names">;

/**
 * The parent's container, running or not; undefined where there is none. Its
 * name counts besides its labels: a container of the parent's image that
 * somebody runs for a look has the labels too.
 */
export async function findParent(
  { docker, settings, prefix, names }: Search,
): Promise<Docker.ContainerInfo | undefined> {
  const given = settings.HAL9000_PARENT;
  const containers = await docker.listContainers({
    all: true,
    ...(given ? {} : { filters: instanceFilter(prefix, "parent") }),
  });
  return containers.find(({ Names }) =>
    Names.includes(`/${given || names.parent}`)
  );
}
