// What a worker needs under HAL9000_HOME: its Claude home, and account files for
// its user.

import { existsSync, lstatSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import {
  ensureDirectory,
  ensureOwner,
  type Owner,
  replaceFile,
  writeAtomic,
} from "../std/owned.ts";
import { configuredServers, offerServers } from "../mcp/offer.ts";
import { pathDigest, type Project } from "../project/project.ts";
import { insideWorker } from "../instance/paths.ts";

/** What the engine mounts in a worker besides its project, as paths of the host. */
export interface WorkerSources {
  /** The worker's own Claude home; undefined for a warm one. */
  claudeHome?: string | undefined;
  /** Shared Claude settings. */
  claudeConfig: string;
  /** The instance's login, without what refreshes it. */
  credentials: string;
  /** The volume with the plugins that all share. */
  plugins: string;
  /** Holds a passwd and a group file for the worker's user. */
  accounts: string;
  /**
   * Holds hosts, resolv.conf and hostname; undefined where the network is the
   * worker's own, and with it the engine's files.
   */
  netFiles?: string | undefined;
  /** Holds a file a secret; undefined where there is none. */
  secrets?: string | undefined;
}

export interface PreparedHome {
  /** Of HAL9000_HOME: where the Claude home is. */
  home: string;
  /** Whether it was not there before. */
  made: boolean;
  sources: WorkerSources;
}

/**
 * What a worker needs under HAL9000_HOME: its Claude home, and the account
 * files of its user. Gives the host paths for the mounts.
 */
export function prepareWorkerHome(
  instance: Pick<
    Instance,
    "home" | "hostHome" | "owner" | "names" | "settings"
  >,
  { name, session }: { name: string; session?: string | undefined },
  project: Project,
): PreparedHome {
  const { home, hostHome } = instance;
  if (process.getuid?.() !== 0 && process.getuid?.() !== project.uid) {
    throw new Failure(
      "unsafe",
      `Cannot spawn on "${project.path}": it belongs to uid ${project.uid}, not to you`,
      {
        hint: "The parent can: docker exec PARENT /scripts/spawn-worker -d DIR",
      },
    );
  }
  const relative = session === undefined
    ? workerHome(name, project)
    : sessionHome(session);
  const claudeHome = join(home.home, relative);
  const made = ensureDirectory(claudeHome, 0o700, project);
  // The project may have changed hands since.
  ensureOwner(claudeHome, project);
  seedClaudeHome(claudeHome, project, session !== undefined);
  // A session chooses its servers itself when it is opened.
  if (session === undefined) {
    const servers = configuredServers(instance, () => {});
    offerServers(instance, claudeHome, project, servers);
  }
  return {
    home: relative,
    made,
    sources: {
      claudeHome: join(hostHome.home, relative),
      claudeConfig: hostHome.claudeConfig,
      credentials: hostHome.credentials,
      plugins: instance.names.volumes.plugins,
      accounts: ensureAccounts(instance, project),
    },
  };
}

/**
 * Of HAL9000_HOME: the Claude home of a worker without a session. A worker's
 * name may serve another project later, which must not see this one's
 * conversations.
 */
export function workerHome(name: string, { path }: Project): string {
  const digest = pathDigest(path);
  return `workers/${name.endsWith(digest) ? name : `${name}-${digest}`}`;
}

/** Of HAL9000_HOME: the Claude home of a session, whatever worker it has. */
export function sessionHome(session: string): string {
  return `claude/${session}`;
}

/**
 * A first start without questions that have but one answer in a worker. Whether the
 * project is trusted is decided when a session opens (project-config.ts); Claude asks
 * by itself in a worker without a session.
 */
function seedClaudeHome(
  directory: string,
  owner: Owner,
  hasTrustDialogAccepted: boolean,
): void {
  // A link that the worker laid there is no file: it is replaced, not followed.
  const stat = lstatSync(stateFile(directory), { throwIfNoEntry: false });
  if (stat?.isFile() && stat.size > 0) return;
  seedState(directory, owner, hasTrustDialogAccepted);
}

/** For a worker whose Claude has not run yet. */
export function seedState(
  directory: string,
  owner: Owner,
  hasTrustDialogAccepted: boolean,
): void {
  const state = {
    hasCompletedOnboarding: true,
    projects: { [insideWorker.workspace]: { hasTrustDialogAccepted } },
  };
  // Made again where a crash left it empty: no need to wait for the disk.
  const text = JSON.stringify(state);
  replaceFile(stateFile(directory), text, owner, { sync: false });
}

const stateFile = (directory: string) => `${directory}/.claude.json`;

/** Account files for a user of workers; gives their directory on the host. */
export function ensureAccounts(
  { home, hostHome, owner }: Pick<Instance, "home" | "hostHome" | "owner">,
  { uid, gid }: Owner,
): string {
  const directory = home.accounts(uid, gid);
  const onHost = hostHome.accounts(uid, gid);
  const files = [`${directory}/passwd`, `${directory}/group`];
  if (files.every((file) => existsSync(file))) return onHost;
  ensureDirectory(directory, 0o755, owner);
  const name = uid === 0 ? "root" : "claude";
  const group = gid === 0 ? "root" : "claude";
  writeAtomic(
    `${directory}/passwd`,
    [
      ...(uid === 0 ? [] : ["root:x:0:0:root:/root:/bin/bash"]),
      `${name}:x:${uid}:${gid}::${insideWorker.home}:/bin/bash`,
      "nobody:x:65534:65534:nobody:/:/bin/false",
      "",
    ].join("\n"),
    owner,
    0o644,
  );
  writeAtomic(
    `${directory}/group`,
    [
      ...(gid === 0 ? [] : ["root:x:0:"]),
      `${group}:x:${gid}:`,
      "nogroup:x:65534:",
      "",
    ].join("\n"),
    owner,
    0o644,
  );
  return onHost;
}
