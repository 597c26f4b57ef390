// Opens the instance for a command, and refuses an instance that belongs to another home
// or user.

import { hostname } from "node:os";
import { connect } from "../docker/connection.ts";
import { type Docker, inspectVolume } from "../docker/docker.ts";
import { endpointOf, socketOf } from "../docker/endpoint.ts";
import { Failure } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { ownerOf } from "../std/owned.ts";
import { type Flags, homeOf, readSettings } from "./config.ts";
import type { Instance } from "./instance.ts";
import { instanceNames, isOfInstance, parentFilter } from "./labels.ts";
import {
  foreignHome,
  foreignInstance,
  refuseForeignHome,
  refuseForeignInstance,
  withoutLinks,
} from "./ownership.ts";
import { homePaths, hostMount } from "./paths.ts";
import { userPlaces } from "./protected.ts";
import { defaultRepository, type Settings } from "./settings.ts";

/**
 * Opens the instance for a command that changes it. Throws a Failure if the instance or
 * its home belongs to someone else.
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

/** Opens the instance for a command that only uses the home; needs no running engine. */
export async function openHome(
  env: NodeJS.ProcessEnv,
  log: Log,
): Promise<Instance> {
  const instance = await connectInstance(env, log, {});
  refuseForeignHome(instance);
  return instance;
}

/**
 * Opens the instance for a read-only command: logs a warning if it belongs to someone
 * else.
 */
export async function viewInstance(
  env: NodeJS.ProcessEnv,
  log: Log,
): Promise<Instance> {
  const instance = await connectInstance(env, log, {});
  const failure = foreignHome(instance) ??
    // The command itself reports an engine that cannot be reached.
    await foreignInstance(instance).catch(() => undefined);
  if (failure) log(`warning: ${failure.message}`);
  return instance;
}

/** Opens the instance without checking its owner. */
export async function connectInstance(
  env: NodeJS.ProcessEnv,
  log: Log,
  flags: Flags = {},
): Promise<Instance> {
  const settings = readSettings(env, {
    warn: (line) => log(`warning: ${line}`),
    flags,
  });
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
      // The engine follows links, and paths are checked with links resolved.
      hostHome: homePaths(withoutLinks(home.home)),
      host: { mount: "", roots: undefined },
      self: undefined,
    };
  }
  const self = await findSelf(common);
  common.settings = withOwnRepository(settings, self.Image);
  const mounts = self.Mounts;
  const mounted = mounts.find(({ Destination }) => Destination === home.home);
  // If a manually started parent has a volume as its home, the list of containers has only
  // the volume's name.
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

/**
 * The parent's own images belong together: by default they are in the repository of its
 * image, as when it was started by hand with another prefix.
 */
export function withOwnRepository(settings: Settings, image: string): Settings {
  const own = /^(.+):(parent|base)$/.exec(image)?.[1];
  const set = defaultRepository(settings.HAL9000_PREFIX) !==
    settings.HAL9000_IMAGE_REPO;
  return own === undefined || set
    ? settings
    : { ...settings, HAL9000_IMAGE_REPO: own };
}

/** The container in which this program runs. */
async function findSelf(
  search: Pick<Instance, "docker" | "prefix" | "names">,
): Promise<Docker.ContainerInfo> {
  const { docker, prefix, names } = search;
  const parents = await docker.listContainers({ filters: parentFilter });
  const running = parents.filter(({ Labels }) =>
    isOfInstance(prefix, "parent", Labels)
  );
  // The host name is the container's id, unless docker run was given another one.
  const self = running.find(({ Id }) => Id.startsWith(hostname())) ??
    running.find(({ Names }) => Names.includes(`/${names.parent}`)) ??
    (running.length === 1 ? running[0] : undefined);
  if (self) return self;
  throw new Failure("notFound", `Cannot find the parent of "${prefix}"`, {
    hint: `Name its container ${names.parent}.`,
  });
}
