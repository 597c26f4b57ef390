// How a command comes by its instance, and is refused one that is somebody else's.

import { hostname } from "node:os";
import { connect, type Docker, inspectVolume } from "../docker/docker.ts";
import { endpointOf, socketOf } from "../docker/endpoint.ts";
import { Failure } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { ownerOf } from "../std/owned.ts";
import { type Flags, homeOf, readSettings } from "./config.ts";
import type { Instance } from "./instance.ts";
import { instanceFilter, instanceNames } from "./labels.ts";
import {
  foreignHome,
  foreignInstance,
  refuseForeignHome,
  refuseForeignInstance,
  withoutLinks,
} from "./ownership.ts";
import { homePaths, hostMount } from "./paths.ts";
import { userPlaces } from "./protected.ts";

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

/** The container that this program runs in. */
async function findSelf(
  search: Pick<Instance, "docker" | "prefix" | "names">,
): Promise<Docker.ContainerInfo> {
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
