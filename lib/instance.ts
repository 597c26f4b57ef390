// An instance as one command sees it: its engine, settings, names and home,
// from the host or from inside the parent, where the host's paths differ.

import { hostname } from "node:os";
import { type Flags, homeOf, readSettings } from "./config.ts";
import type { Settings } from "./settings.ts";
import { connect, type Docker, inspectVolume } from "./docker.ts";
import { endpointOf, socketOf } from "./endpoint.ts";
import { Failure } from "./errors.ts";
import type { HostView } from "./hostpath.ts";
import { instanceFilter, instanceNames } from "./labels.ts";
import type { Log } from "./log.ts";
import { type Owner, ownerOf } from "./owned.ts";
import {
  foreignHome,
  foreignInstance,
  refuseForeignHome,
  refuseForeignInstance,
  withoutLinks,
} from "./ownership.ts";
import { type HomePaths, homePaths, hostMount } from "./paths.ts";
import { type UserPlaces, userPlaces } from "./protected.ts";

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

/**
 * The instance, for a command that changes something of it. Throws a Failure where
 * the instance, or the home, is somebody else's.
 */
export async function openInstance(
  env: NodeJS.ProcessEnv,
  log: Log,
  flags: Flags = {},
): Promise<Instance> {
  const instance = await connectInstance(env, log, flags);
  refuseForeignHome(instance);
  await refuseForeignInstance(instance);
  return instance;
}

/** The same for a command that uses the home alone: the engine need not run. */
export async function openHome(
  env: NodeJS.ProcessEnv,
  log: Log,
): Promise<Instance> {
  const instance = await connectInstance(env, log, {});
  refuseForeignHome(instance);
  return instance;
}

/**
 * The instance, for a command that changes nothing: one that is somebody else's is
 * shown with a warning.
 */
export async function viewInstance(
  env: NodeJS.ProcessEnv,
  log: Log,
): Promise<Instance> {
  const instance = await connectInstance(env, log, {});
  const failure = foreignHome(instance) ??
    // An engine that is out of reach is told of by the command itself.
    await foreignInstance(instance).catch(() => undefined);
  if (failure) log(`warning: ${failure.message}`);
  return instance;
}

/** The instance whoever it belongs to. */
export async function connectInstance(
  env: NodeJS.ProcessEnv,
  log: Log,
  flags: Flags = {},
): Promise<Instance> {
  const settings = readSettings(env, { warn: log, flags });
  const home = homePaths(homeOf(env));
  const prefix = settings.HAL9000_PREFIX;
  const common = {
    docker: await connect(env),
    settings,
    socket: socketOf(endpointOf(env)),
    prefix,
    names: instanceNames(prefix),
    home,
    owner: ownerOf(home.home),
    places: userPlaces(env),
  };
  if (env["HAL9000_ROLE"] !== "parent") {
    return {
      ...common,
      // The engine follows links, and paths are judged without them.
      hostHome: homePaths(withoutLinks(home.home)),
      host: { mount: "", roots: undefined },
      self: undefined,
    };
  }
  const self = await findSelf(common);
  const mounts = self.Mounts;
  const mounted = mounts.find(({ Destination }) => Destination === home.home);
  // Of a volume, as where a parent by hand was given no home, the list tells
  // the name alone.
  const volume = mounted?.Source || !mounted?.Name
    ? undefined
    : await inspectVolume(common.docker, mounted.Name);
  return {
    ...common,
    hostHome: homePaths(mounted?.Source || volume?.Mountpoint || home.home),
    host: {
      mount: hostMount,
      roots: mounts
        .filter((mount) => mount.Destination.startsWith(`${hostMount}/`))
        .map((mount) => mount.Destination.slice(hostMount.length)),
    },
    self,
  };
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

/** The container that this program runs in. */
async function findSelf(search: Search): Promise<Docker.ContainerInfo> {
  const { docker, prefix, names } = search;
  const running = await docker.listContainers({
    filters: instanceFilter(prefix, "parent"),
  });
  // A parent of ours has the net container's host name, one that was started by
  // hand has its own id.
  const self = running.find(({ Id }) => Id.startsWith(hostname())) ??
    running.find(({ Names }) => Names.includes(`/${names.parent}`)) ??
    (running.length === 1 ? running[0] : undefined);
  if (self) return self;
  throw new Failure("notFound", `Cannot find the parent of "${prefix}"`, {
    hint: `Call its container ${names.parent}.`,
  });
}
