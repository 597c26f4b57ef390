// All settings with their validation, default and description.

import { homedir } from "node:os";
import { isAbsolute } from "node:path";
import * as v from "valibot";
import { parseSize, sizePattern } from "../std/units.ts";
import { type PermissionMode, permissionModes } from "./permission-mode.ts";

/** The engine's minimum, and more than any machine has. */
const minMemory = 6 * 1024 ** 2;
const maxMemory = 1024 ** 5;

/** The descriptions are the column of values in docs/dind/CONFIGURATION.md. */
const size = v.pipe(
  v.string(),
  v.description("a size such as `512m` or `4g`"),
  v.regex(sizePattern, "must be a size such as 512m or 4g"),
  v.transform(parseSize),
  v.minValue(minMemory, "must be a size of at least 6m"),
  v.maxValue(maxMemory, "must be a size of at most 1024t"),
);

const wholeNumber = (from: number, to: number) => {
  const message = `must be a whole number from ${from} to ${to}`;
  return v.pipe(
    v.string(),
    v.description(`${from} to ${to}`),
    v.regex(/^\d+$/, message),
    v.transform(Number),
    v.minValue(from, message),
    v.maxValue(to, message),
  );
};

/** Undefined for auto: the image decides, see worker/limits.ts. */
const pidsMessage = "must be a whole number from 1 to 1000000, or auto";
const pids = v.pipe(
  v.string(),
  v.description("1 to 1000000, or `auto`"),
  v.regex(/^(\d+|auto)$/, pidsMessage),
  v.transform((text) => text === "auto" ? undefined : Number(text)),
  v.check((n) => n === undefined || (n >= 1 && n <= 1_000_000), pidsMessage),
);

const cpus = v.pipe(
  v.string(),
  v.description("a number such as `2` or `0.5`"),
  v.regex(/^\d+(\.\d+)?$/, "must be a number of CPUs such as 2 or 0.5"),
  v.transform(Number),
  v.minValue(0.01, "must be at least 0.01"),
);

const flag = v.pipe(
  v.picklist(["true", "false"], 'must be "true" or "false"'),
  v.description("`true` or `false`"),
  v.transform((text) => text === "true"),
);

const modesMessage =
  "must be PATH=MODE, separated by colons, with an absolute path and one of " +
  permissionModes.join(", ");

const absolutePaths = v.pipe(
  v.string(),
  v.description("absolute paths, separated by colons"),
  v.transform((text) => text.split(":").filter((path) => path !== "")),
  v.check(
    (paths) => paths.length > 0 && paths.every(isAbsolute),
    "must be absolute paths separated by colons",
  ),
);

const name = v.pipe(
  v.string(),
  v.description("lower-case letters, digits and dashes"),
  v.regex(
    /^[a-z][a-z0-9-]{0,40}$/,
    "must be lower-case letters, digits and dashes, and start with a letter",
  ),
);

const imageName = v.pipe(
  v.string(),
  v.description("the name of an image"),
  v.regex(/^[a-z0-9][\w.\-/:@]*$/, "must be the name of an image"),
);

const profileNames = v.pipe(
  v.string(),
  v.description("names of profiles, separated by spaces"),
  v.transform((text) => text.split(/\s+/).filter((word) => word !== "")),
  v.check(
    (names) =>
      names.length > 0 && names.every((name) => /^[a-z][a-z0-9-]*$/.test(name)),
    "must be names of profiles separated by spaces",
  ),
  v.transform((names) => [...new Set(names)]),
);

/** Package managers whose caches workers can share, see worker/caches.ts. */
export const cacheKinds = ["npm", "pip", "maven"] as const;

export type CacheKind = typeof cacheKinds[number];

const cachesMessage = `must be none, or names of ${cacheKinds.join(", ")}`;

const caches = v.pipe(
  v.string(),
  v.description("`none`, or `npm`, `pip`, `maven` separated by spaces"),
  v.transform((text) =>
    text === "none" ? [] : text.split(/[\s,]+/).filter((word) => word !== "")
  ),
  v.array(v.picklist(cacheKinds, cachesMessage)),
  v.transform((names): readonly CacheKind[] =>
    cacheKinds.filter((kind) => names.includes(kind))
  ),
);

/** PATH=MODE, separated by colons. */
const modesByProject = v.pipe(
  v.string(),
  v.description("`PATH=MODE`, separated by colons"),
  v.transform((text) =>
    text.split(":").filter(Boolean).map((entry) => {
      const at = entry.lastIndexOf("=");
      return [entry.slice(0, at), entry.slice(at + 1)] as const;
    })
  ),
  v.array(
    v.tuple([
      v.pipe(v.string(), v.check(isAbsolute, modesMessage)),
      v.picklist(permissionModes, modesMessage),
    ]),
  ),
  v.transform((entries): ReadonlyMap<string, PermissionMode> =>
    new Map(entries)
  ),
);

export const workerNetworks = ["shared", "isolated"] as const;

export type WorkerNetwork = typeof workerNetworks[number];
/** Their meaning: egress/presets.ts. */
export const egressPresets = ["open", "balanced", "closed"] as const;

/** In the order of the settings file. */
export const definitions = {
  HAL9000_PREFIX: {
    schema: name,
    fallback: "hal9000",
    meaning: "Name of the instance, and prefix of its containers and volumes",
  },
  HAL9000_PARENT: {
    schema: v.pipe(
      v.string(),
      v.description("the name of a container"),
      v.regex(/^[\w.-]*$/, "must be a container's name"),
    ),
    fallback: "",
    meaning: "Name of the parent's container, if its labels do not identify it",
  },
  HAL9000_IMAGE_REPO: {
    schema: imageName,
    fallback: "ghcr.io/hellblazer/hal-9000",
    meaning:
      "Repository of the images; an instance with another prefix has its own",
  },
  HAL9000_ENGINE_SOCKET: {
    schema: v.pipe(
      v.string(),
      v.description("an absolute path"),
      v.regex(/^(\/[^:]*)?$/, "must be an absolute path without a colon"),
    ),
    fallback: "",
    meaning:
      "The engine's socket on the engine's machine; empty for that of the client, or /var/run/docker.sock in a virtual machine",
  },
  HAL9000_PROJECT_ROOTS: {
    schema: absolutePaths,
    fallback: homedir(),
    meaning: "Directories that the parent can see, separated by colons",
  },
  WORKER_IMAGE: {
    schema: v.pipe(
      v.union([v.literal(""), imageName]),
      v.description("the name of an image"),
    ),
    fallback: "",
    meaning: "Image of workers; empty for the tag worker of the repository",
  },
  WORKER_MEMORY: {
    schema: size,
    fallback: "4g",
    meaning:
      "Memory limit of a worker, swap included, at most what the engine has",
  },
  WORKER_CPUS: {
    schema: cpus,
    fallback: "2",
    meaning: "CPUs of a worker, at most as many as the engine has",
  },
  WORKER_PIDS_LIMIT: {
    schema: pids,
    fallback: "auto",
    meaning:
      "Maximum number of processes and threads of a worker; auto: 100, or 2048 " +
      "with a profile",
  },
  WORKER_NETWORK: {
    schema: v.pipe(
      v.picklist(workerNetworks, 'must be "shared" or "isolated"'),
      v.description("`shared` or `isolated`"),
    ),
    fallback: "shared",
    meaning:
      "Network of workers: one for all, or none but the services on localhost",
  },
  WORKER_DISK: {
    schema: size,
    fallback: "10g",
    meaning:
      "Disk use of a worker's container and home that is reported as too much",
  },
  WORKER_CACHES: {
    schema: caches,
    fallback: "none",
    meaning:
      "Package caches that workers share; each worker can change what the others get",
  },
  REQUIRE_LIMITS: {
    schema: flag,
    fallback: "false",
    meaning: "Refuse workers on an engine that cannot enforce their limits",
  },
  USE_DEVCONTAINERS: {
    schema: flag,
    fallback: "true",
    meaning: "Build a project's worker image from its devcontainer.json",
  },
  WORKER_SECCOMP: {
    schema: v.pipe(
      v.picklist(["hal9000", "engine"], 'must be "hal9000" or "engine"'),
      v.description("`hal9000` or `engine`"),
    ),
    fallback: "hal9000",
    meaning:
      "System calls of workers: hal9000 refuses set-uid files, engine does not",
  },
  UNGUARDED: {
    schema: flag,
    fallback: "false",
    meaning:
      "Let workers change .git/hooks, .git/config and other files that " +
      "run programs on your host",
  },
  EGRESS_PRESET: {
    schema: v.pipe(
      v.picklist(egressPresets, 'must be "open", "balanced" or "closed"'),
      v.description("`open`, `balanced` or `closed`"),
    ),
    fallback: "balanced",
    meaning:
      "Hosts that isolated workers can reach, unless a rule says otherwise",
  },
  MAX_REQUESTS_PER_MINUTE: {
    schema: wholeNumber(0, 100_000),
    fallback: "200",
    meaning:
      "Maximum number of requests of a session to the API in a minute, then it is paused; 0 for no limit",
  },
  RESUME_WHEN_RESET: {
    schema: flag,
    fallback: "false",
    meaning:
      "Continue sessions that stopped at the account's limit, when it resets",
  },
  HAL9000_RELAY: {
    schema: v.pipe(
      v.picklist(["on", "off"], 'must be "on" or "off"'),
      v.description("`on` or `off`"),
    ),
    fallback: "on",
    meaning:
      "Keep credentials out of workers: the relay adds them to requests for the Anthropic API",
  },
  PARENT_MEMORY: {
    schema: size,
    fallback: "4g",
    meaning: "Memory limit of the parent",
  },
  PARENT_CPUS: {
    schema: cpus,
    fallback: "2",
    meaning: "CPUs of the parent",
  },
  CHROMADB_PORT: {
    schema: wholeNumber(1, 65535),
    fallback: "8000",
    meaning: "ChromaDB's port on 127.0.0.1 in the namespace",
  },
  ALLOW_HOST: {
    schema: flag,
    fallback: "false",
    meaning:
      "Let workers connect to the host's bridge and link-local addresses",
  },
  ENABLE_POOL_MANAGER: {
    schema: flag,
    fallback: "false",
    meaning: "Keep warm workers",
  },
  MIN_WARM_WORKERS: {
    schema: wholeNumber(0, 100),
    fallback: "2",
    meaning: "Minimum number of warm workers",
  },
  MAX_WARM_WORKERS: {
    schema: wholeNumber(0, 100),
    fallback: "5",
    meaning: "Maximum number of warm workers",
  },
  IDLE_TIMEOUT: {
    schema: wholeNumber(1, 86400),
    fallback: "300",
    meaning: "Seconds before a warm worker above the minimum is removed",
  },
  CHECK_INTERVAL: {
    schema: wholeNumber(1, 3600),
    fallback: "30",
    meaning: "Seconds between checks of the pool",
  },
  WARM_PROFILES: {
    schema: profileNames,
    fallback: "base",
    meaning: "Profiles with warm workers; the limits apply to each profile",
  },
  HAL9000_NOTIFY_COMMAND: {
    schema: v.pipe(v.string(), v.description("a command line of the shell")),
    fallback: "",
    meaning:
      "Command to run when a session starts to wait, two change the same files, or a budget or limit is reached, for claudy watch",
  },
  MCP_SOCKET: {
    schema: v.pipe(
      v.picklist(["auto", "unix", "tcp"], 'must be "auto", "unix" or "tcp"'),
      v.description("`auto`, `unix` or `tcp`"),
    ),
    fallback: "auto",
    meaning:
      "How workers reach the host's MCP servers; auto: tcp if unix sockets do not cross",
  },
  PERMISSION_MODES: {
    schema: modesByProject,
    fallback: "",
    meaning:
      "Permission mode of Claude by project: PATH=MODE, separated by colons",
  },
  SKIP_IMAGE_PULL: {
    schema: flag,
    fallback: "false",
    meaning: "Do not pull a missing worker image when the parent starts",
  },
  LAZY_IMAGE_PULL: {
    schema: flag,
    fallback: "false",
    meaning: "Pull a missing worker image in the background",
  },
} as const;

/**
 * The default repository of images. An instance with another prefix has its own images,
 * so that builds of other instances do not move its tags.
 */
export function defaultRepository(prefix: string): string {
  const { HAL9000_PREFIX, HAL9000_IMAGE_REPO } = definitions;
  return prefix === HAL9000_PREFIX.fallback || !v.is(name, prefix)
    ? HAL9000_IMAGE_REPO.fallback
    : prefix;
}

type Definitions = typeof definitions;
export type SettingName = keyof Definitions;
export type Settings = {
  readonly [Key in SettingName]: v.InferOutput<Definitions[Key]["schema"]>;
};
