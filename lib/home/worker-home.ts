// Prepares the files of a worker in HAL9000_HOME: its Claude home, and the account files
// for its user.

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

/** Host paths of what is mounted in a worker besides its project. */
export interface WorkerSources {
  /** The worker's Claude home; undefined for a warm worker. */
  claudeHome?: string | undefined;
  /** Shared Claude settings. */
  claudeConfig: string;
  /** The instance's login, without its refresh token. */
  credentials: string;
  /** The volume with the shared plugins. */
  plugins: string;
  /** Directory with a passwd and a group file for the worker's user. */
  accounts: string;
  /**
   * Directory with hosts, resolv.conf and hostname; undefined for a worker with its own
   * network, which uses the engine's files.
   */
  netFiles?: string | undefined;
  /** Directory with one file per secret; undefined if there are none. */
  secrets?: string | undefined;
}

export interface PreparedHome {
  /** Path of the Claude home, relative to HAL9000_HOME. */
  home: string;
  /** Whether the Claude home was created by this call. */
  made: boolean;
  sources: WorkerSources;
}

/**
 * Creates the worker's Claude home and the account files of its user, if necessary.
 * Returns the host paths for the mounts.
 */
export function prepareWorkerHome(
  instance: Pick<
    Instance,
    "home" | "hostHome" | "owner" | "names" | "settings"
  >,
  { name, session, user }: {
    name: string;
    session?: string | undefined;
    /** The project's owner in containers. */
    user: Owner;
  },
  project: Project,
): PreparedHome {
  const { home, hostHome } = instance;
  if (process.getuid?.() !== 0 && process.getuid?.() !== project.uid) {
    throw new Failure(
      "unsafe",
      `Cannot spawn on "${project.path}": it belongs to uid ${project.uid}, not to you`,
      {
        hint:
          "Spawn it from the parent: docker exec PARENT hal9000-spawn-worker -d DIR",
      },
    );
  }
  const relative = session === undefined
    ? workerHome(name, project)
    : sessionHome(session);
  const claudeHome = join(home.home, relative);
  const made = ensureDirectory(claudeHome, 0o700, project);
  // The project's owner may have changed.
  ensureOwner(claudeHome, project);
  seedClaudeHome(claudeHome, project, session !== undefined);
  // For a session, readySession() writes the chosen servers.
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
      accounts: ensureAccounts(instance, user),
    },
  };
}

/**
 * The Claude home of a worker without a session, relative to HAL9000_HOME. Contains a
 * digest of the project's path: another project may reuse the worker's name later, and
 * must not see these conversations.
 */
export function workerHome(name: string, { path }: Project): string {
  const digest = pathDigest(path);
  return `workers/${name.endsWith(digest) ? name : `${name}-${digest}`}`;
}

/** The Claude home of a session, relative to HAL9000_HOME. */
export function sessionHome(session: string): string {
  return `claude/${session}`;
}

/**
 * Skips Claude's first-run questions. For a session, config-approval.ts decides whether
 * the project is trusted; in a worker without a session, Claude asks.
 */
function seedClaudeHome(
  directory: string,
  owner: Owner,
  hasTrustDialogAccepted: boolean,
): void {
  // A link created by the worker is replaced, not followed.
  const stat = lstatSync(stateFile(directory), { throwIfNoEntry: false });
  if (stat?.isFile() && stat.size > 0) return;
  seedState(directory, owner, hasTrustDialogAccepted);
}

/** Writes the initial .claude.json, before Claude has run. */
export function seedState(
  directory: string,
  owner: Owner,
  hasTrustDialogAccepted: boolean,
): void {
  const state = {
    hasCompletedOnboarding: true,
    projects: { [insideWorker.workspace]: { hasTrustDialogAccepted } },
  };
  // No fsync: if a crash leaves the file empty, it is written again.
  const text = JSON.stringify(state);
  replaceFile(stateFile(directory), text, owner, { sync: false });
}

const stateFile = (directory: string) => `${directory}/.claude.json`;

/** Writes passwd and group files for a user; returns their directory on the host. */
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
