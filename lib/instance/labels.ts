// Label names and values. An instance puts them on everything it creates, and finds it
// by them.

import { createHash } from "node:crypto";

export const label = {
  instance: "hal9000.instance",
  /** HAL9000_HOME of the instance as a path of the engine's machine. */
  home: "hal9000.home",
  role: "hal9000.role",
  /** On volumes: a unique id, independent of the name. */
  volume: "hal9000.volume",
  born: "hal9000.born",
  session: "hal9000.session",
  project: "hal9000.project",
  /** On workers: their kind of network, see worker/network.ts. */
  network: "hal9000.network",
  /** "true" on a worker that reaches the Anthropic API by the relay. */
  relay: "hal9000.relay",
  /** "true" on a worker that is kept after it exits. */
  keep: "hal9000.keep",
  /** "true" on the stages of images, which have no tag. */
  stage: "hal9000.stage",
  /** On images and warm workers: a digest of their inputs. */
  inputs: "hal9000.inputs",
  /** On images: the id of the Debian image that they are built from. */
  base: "hal9000.base",
  /** On the mover: a description of its owner. */
  owner: "hal9000.owner",
  /** On the image of a profile: the default limit of its workers' processes. */
  pids: "hal9000.pids",
  /** "true" on the image of a profile: it has git-lfs. */
  lfs: "hal9000.lfs",
  /** On the image of a devcontainer: the project's path. */
  devcontainer: "hal9000.devcontainer",
  /** On the image of a devcontainer: commands for a new worker, as JSON. */
  postCreate: "hal9000.postcreate",
  /** On the image of a profile: a shell command that tests it. */
  smoke: "hal9000.smoke",
} as const;

/**
 * On images and their containers: the version of the program that built them.
 * https://specs.opencontainers.org/image-spec/annotations/
 */
export const versionLabel = "org.opencontainers.image.version";

export type Role =
  | "net"
  | "parent"
  | "nsenter"
  /** What nsenter was called in earlier versions. */
  | "mounter"
  /** What served ports in the workers' network in earlier versions. */
  | "forwarder"
  | "worker"
  | "helper";

/** The labels of every container of an instance. */
export function roleLabels(
  prefix: string,
  role: Role,
  /** HAL9000_HOME as a path of the engine's machine. */
  home: string,
): Record<string, string> {
  return {
    [label.instance]: prefix,
    [label.role]: role,
    [label.home]: home,
  };
}

/** Docker's `filters` argument for the containers of an instance. */
export function instanceFilter(
  prefix: string,
  role?: Role,
): { label: string[] } {
  const labels = [`${label.instance}=${prefix}`];
  if (role) labels.push(`${label.role}=${role}`);
  return { label: labels };
}

/** Docker's `filters` argument for the parents of all instances. */
export const parentFilter = { label: [`${label.role}=parent`] };

/**
 * Whether labels are those of an instance's container. A parent that was started by hand
 * has only its image's label, so its name decides; its children have all labels.
 */
export function isOfInstance(
  prefix: string,
  role: Role,
  labels: Record<string, string>,
): boolean {
  const instance = labels[label.instance] ??
    (role === "parent" ? prefix : undefined);
  return instance === prefix && labels[label.role] === role;
}

/** The limit of checkWorkerName() in worker.ts. */
const maxNameLength = 63;

const digestOf = (text: string) =>
  createHash("sha256").update(text).digest("hex").slice(0, 8);

/** Names within an instance; an id is 8 hex digits. */
export function instanceNames(prefix: string) {
  return {
    net: `${prefix}-net`,
    parent: `${prefix}-parent`,
    /** The former parent, until an upgrade is done. */
    formerParent: `${prefix}-parent-former`,
    nsenter: `${prefix}-nsenter`,
    formerNsenter: `${prefix}-mounter`,
    formerForwarder: `${prefix}-mcp`,
    worker: (id: string) => `${prefix}-worker-${id}`,
    /** A session's worker if another instance's container has the session's name. */
    session: (session: string) => {
      const name = `${prefix}-session-${session}`;
      return name.length <= maxNameLength
        ? name
        : `${prefix}-session-${digestOf(session)}`;
    },
    /** An unclaimed warm worker. */
    warm: (id: string) => `${prefix}-warm-${id}`,
    /** The volume of a package cache. */
    cache: (kind: string) => `${prefix}-cache-${kind}`,
    volumes: {
      chromadb: `${prefix}-chromadb`,
      plugins: `${prefix}-plugins`,
      memorybank: `${prefix}-memorybank`,
    },
  };
}
