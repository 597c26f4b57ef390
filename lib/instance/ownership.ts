// Determines who owns an instance. A home belongs to one instance and one user, and an
// instance has one home. Both are recorded on everything that is created, and every
// command that makes changes compares them first.

import { existsSync, readFileSync, realpathSync, statSync } from "node:fs";
import { homedir, userInfo } from "node:os";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import type { Docker } from "../docker/docker.ts";
import { Failure } from "../std/errors.ts";
import type { Instance } from "./instance.ts";
import { instanceFilter, type instanceNames, label } from "./labels.ts";
import { type HomePaths, insideParent } from "./paths.ts";
import { systemDirectories } from "./protected.ts";
import { insideWorker } from "./paths.ts";

/** A home that is recorded on a container or volume of the instance. */
export interface RecordedHome {
  home: string;
  /** "container x" or "volume y". */
  on: string;
  /** Whether the object decides the ownership: the parent, net and volumes, not workers. */
  decides: boolean;
}

type Container = Pick<Docker.ContainerInfo, "Names" | "Labels" | "Mounts">;
type Volume = Pick<Docker.VolumeInspectInfo, "Name" | "Labels" | "Options">;

/**
 * The homes that are recorded on an instance's containers and volumes, in the order of
 * their weight: the parent, then net and volumes, then the rest. For objects that are
 * older than the label, the mounts are used.
 */
export function recordedHomes(
  names: ReturnType<typeof instanceNames>,
  containers: Container[],
  volumes: Volume[],
): RecordedHome[] {
  const found = containers.flatMap((container): RecordedHome[] => {
    const home = homeOfContainer(container);
    if (home === undefined) return [];
    const role = container.Labels[label.role];
    const name = (container.Names[0] ?? "").slice(1);
    const decides = ["parent", "net"].includes(role ?? "");
    return [{ home, on: `container ${name}`, decides }];
  });
  const own: string[] = Object.values(names.volumes);
  const kept = volumes.filter(({ Name }) => own.includes(Name))
    .flatMap((volume): RecordedHome[] => {
      const home = homeOfVolume(names, volume);
      if (home === undefined) return [];
      return [{ home, on: `volume ${volume.Name}`, decides: true }];
    });
  const rank = ({ on, decides }: RecordedHome) =>
    on === `container ${names.parent}` ? 0 : decides ? 1 : 2;
  return [...found, ...kept].sort((a, b) => rank(a) - rank(b));
}

function homeOfContainer({ Labels, Mounts }: Container): string | undefined {
  const noted = Labels[label.home];
  if (noted) return noted;
  const sourceOf = (target: string) =>
    Mounts.find(({ Destination, Type }) =>
      Destination === target && Type === "bind"
    )?.Source;
  const config = sourceOf(insideWorker.claudeConfig);
  return sourceOf(insideParent.home) ?? (config && dirname(dirname(config)));
}

function homeOfVolume(
  { volumes }: ReturnType<typeof instanceNames>,
  { Name, Labels, Options }: Volume,
): string | undefined {
  const noted = Labels?.[label.home];
  if (noted) return noted;
  const device = Options?.["device"];
  return Name === volumes.memorybank && device ? dirname(device) : undefined;
}

type Search = Pick<
  Instance,
  "docker" | "prefix" | "names" | "home" | "hostHome" | "self"
>;

/**
 * A Failure if the instance belongs to another home; otherwise undefined. With `all`,
 * every deciding object is checked, as is necessary before data is moved or removed.
 */
export async function foreignInstance(
  instance: Search,
  { all = false } = {},
): Promise<Failure | undefined> {
  const { docker, names, prefix } = instance;
  const [containers, { Volumes }] = await Promise.all([
    docker.listContainers({ all: true, filters: instanceFilter(prefix) }),
    docker.listVolumes({ filters: { name: Object.values(names.volumes) } }),
  ]);
  const noted = recordedHomes(names, containers, Volumes ?? []);
  const deciding = all ? noted.filter(({ decides }) => decides) : [];
  const other = [...noted.slice(0, 1), ...deciding]
    .find(({ home }) => !isSameHome(instance, home));
  return other && foreign(instance, other);
}

/** Throws a `busy` Failure if the instance belongs to another home. */
export async function refuseForeignInstance(
  instance: Search,
  options: { all?: boolean } = {},
): Promise<void> {
  const failure = await foreignInstance(instance, options);
  if (failure) throw failure;
}

/** On the host, one path may be a link to the other, for example after a move. */
export function isSameHome(
  { hostHome, self }: Pick<Instance, "hostHome" | "self">,
  home: string,
): boolean {
  if (home === hostHome.home) return true;
  return !self && withoutLinks(home) === withoutLinks(hostHome.home);
}

/** The failure for an instance that is recorded with another home. */
function foreign(
  instance: Pick<Instance, "prefix" | "home" | "hostHome" | "self">,
  { home: other, on }: RecordedHome,
): Failure {
  const { prefix, hostHome, self } = instance;
  return new Failure(
    "busy",
    `Instance "${prefix}" belongs to ${other} (see ${on}), not to ${hostHome.home}`,
    {
      hint: self
        ? `Run this on the host, with HAL9000_HOME=${other}`
        : ownershipHints(instance, other).join("\n"),
    },
  );
}

/** Hints for a user whose home does not match the instance. */
function ownershipHints(
  { prefix, home, hostHome }: Pick<Instance, "prefix" | "home" | "hostHome">,
  other: string,
): string[] {
  const own = ownInstance(prefix, home);
  const ways = [
    "Use an instance of your own: " +
    `export HAL9000_PREFIX=${own.prefix} HAL9000_HOME=${own.home}`,
  ];
  const uid = uidOf(other);
  if (uid !== undefined && uid === process.getuid?.()) {
    ways.push(`Or use that home: export HAL9000_HOME=${other}`);
  } else if (uid === undefined && recordedInstance(home) === prefix) {
    ways.push(
      `If the home was moved, link it: ln -s ${hostHome.home} ${other}`,
    );
  }
  return ways;
}

/** The owner of a path; undefined if it is missing, null if it is not accessible. */
function uidOf(path: string): number | null | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false })?.uid;
  } catch {
    return null;
  }
}

/** The limit of HAL9000_PREFIX in settings.ts. */
const maxPrefixLength = 41;

/** A prefix and a home that are unique to this user of the engine. */
function ownInstance(
  prefix: string,
  home: HomePaths,
): { prefix: string; home: string } {
  const user = userInfo().username.toLowerCase().replace(/[^a-z0-9-]/g, "-")
    .slice(0, 20);
  const name = `${prefix.slice(0, maxPrefixLength - 1 - user.length)}-${user}`;
  // A home that is recorded as the other instance's cannot be used with another prefix.
  const taken = recordedInstance(home) === prefix;
  return { prefix: name, home: taken ? `${home.home}-${user}` : home.home };
}

/**
 * A Failure if a directory cannot be a home, or belongs to another instance or user;
 * otherwise undefined. Does not use the engine.
 */
export function foreignHome(
  { home, prefix }: Pick<Instance, "home" | "prefix">,
): Failure | undefined {
  const isTaken = (path: string) =>
    path === homedir() || path === withoutLinks(homedir()) ||
    systemDirectories.includes(path);
  if (isTaken(home.home) || isTaken(withoutLinks(home.home))) {
    return new Failure("unsafe", `${home.home} cannot be HAL9000_HOME`, {
      hint: "Set HAL9000_HOME to a separate directory, such as ~/.hal9000.",
    });
  }
  const stat = statSync(home.home, { throwIfNoEntry: false });
  const uid = process.getuid?.() ?? 0;
  if (stat?.isDirectory() && uid !== 0 && stat.uid !== uid) {
    return new Failure(
      "unsafe",
      `Cannot use ${home.home}: it belongs to uid ${stat.uid}, not to you`,
      { hint: "Set HAL9000_HOME to a directory of your own." },
    );
  }
  const other = recordedInstance(home);
  if (other === undefined || other === prefix) return undefined;
  return new Failure("busy", `${home.home} belongs to instance "${other}"`, {
    hint: `Use that instance: export HAL9000_PREFIX=${other}\n` +
      `Or give "${prefix}" its own home: export HAL9000_HOME=DIR`,
  });
}

/** Throws a Failure if the home belongs to another instance or user. */
export function refuseForeignHome(
  instance: Pick<Instance, "home" | "prefix">,
): void {
  const failure = foreignHome(instance);
  if (failure) throw failure;
}

/** The prefix of the instance that owns a home; undefined if none is recorded. */
export function recordedInstance({ instance }: HomePaths): string | undefined {
  return existsSync(instance)
    ? readFileSync(instance, "utf8").trim() || undefined
    : undefined;
}

/** Resolves links in the part of the path that exists. */
export function withoutLinks(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    const above = dirname(path);
    return above === path ? path : join(withoutLinks(above), basename(path));
  }
}
