// Checks host paths before a worker gets them: the project's directory, and requested
// mounts.

import { createHash } from "node:crypto";
import { realpathSync } from "node:fs";
import { basename, dirname, isAbsolute, join, resolve } from "node:path";
import { lookFromHelper } from "../helper/helper.ts";
import { Failure, type FailureKind } from "../std/errors.ts";
import { type HostPath, isWithin, lookAt } from "../std/hostpath.ts";
import type { Instance } from "../instance/instance.ts";
import type { Owner } from "../std/owned.ts";
import { refusalOf } from "../instance/protected.ts";
import { readRecords } from "../instance/record.ts";
import { readSessions } from "../instance/session-record.ts";

export interface Project extends Owner {
  /** Absolute path on the host, with links resolved. */
  path: string;
  /** Device and inode number of the directory, as stat's %d:%i. */
  inode?: string | undefined;
}

/** What the record of a worker contains of its project. */
export function ownedProject({ path, uid, gid, inode }: Project): Project {
  return { path, uid, gid, inode };
}

/**
 * The same for a worker whose workspace is a session's copy of `copyOf`: it belongs to the
 * user's project.
 */
export function recordedProject(
  workspace: Project,
  copyOf: string | undefined,
): { project: Project; workspace?: string } {
  const project = ownedProject(workspace);
  return copyOf === undefined
    ? { project }
    : { project: { ...project, path: copyOf }, workspace: workspace.path };
}

/** A path as given by the user. */
export interface GivenPath {
  path: string;
  /** The base of a relative path. */
  cwd: string;
  /** Its use, as in `Cannot use "x" as project`. */
  as: string;
  /** Whether the worker gets it read-only. */
  readOnly?: boolean;
  /** Whether to allow paths that are refused by default. */
  allowAny: boolean;
}

/** The project at a path; throws a Failure if it cannot be used. */
export async function resolveProject(
  instance: Instance,
  given: GivenPath,
): Promise<Project & HostPath> {
  const found = await resolveGiven(instance, given);
  if (found.kind !== "directory") {
    throw new Failure(
      "usage",
      `Cannot use "${given.path}" as ${given.as}: it is not a directory`,
      { hint: `Use the directory that it is in: ${dirname(found.path)}` },
    );
  }
  return found;
}

/** Resolves a path and checks that a worker may have it; otherwise throws a Failure. */
export async function resolveGiven(
  instance: Instance,
  given: GivenPath,
): Promise<HostPath> {
  const subject = `Cannot use "${given.path}" as ${given.as}`;
  const { host } = instance;
  if (host.mount !== "" && !isAbsolute(given.path)) {
    throw new Failure(
      "usage",
      `${subject}: inside the parent it must be an absolute path of the host`,
      { hint: "Pass the path that the directory has on the host." },
    );
  }
  const wanted = resolve(given.cwd, given.path);
  let found: HostPath;
  try {
    found = lookAt(wanted, host) ?? await lookFromHelper(instance, wanted);
  } catch (error) {
    throw pathFailure(subject, error);
  }
  const reason = given.allowAny
    ? undefined
    : linkOut(instance, wanted, found.path) ??
      refusalIn(instance, found.path, given);
  if (reason !== undefined) {
    throw new Failure("unsafe", `${subject}: ${reason}`, {
      hint:
        "Choose a directory with only the project in it, or see --allow-any-path.",
    });
  }
  return found;
}

/**
 * The reason to refuse a path that goes through a link which leads out of a known
 * project. A worker may have created the link to choose what the next worker gets.
 */
function linkOut(
  instance: Pick<Instance, "home" | "owner" | "host">,
  wanted: string,
  found: string,
): string | undefined {
  if (wanted === found) return undefined;
  const typed = [wanted];
  if (instance.host.mount === "") {
    typed.push(join(realpathSync(dirname(wanted)), basename(wanted)));
  }
  const projects = [
    ...readSessions(instance).map(({ project }) => project),
    ...readRecords(instance).map(({ project }) => project.path),
  ];
  const project = projects.find((path) =>
    !isWithin(found, path) &&
    typed.some((way) => way !== path && isWithin(way, path))
  );
  return project && `a link in project ${project} leads to ${found}`;
}

/** Why a worker of the instance may not have `path`; undefined if it may. */
export function refusalIn(
  { hostHome, socket, places }: Pick<
    Instance,
    "hostHome" | "socket" | "places"
  >,
  path: string,
  { readOnly = false } = {},
): string | undefined {
  const { userHomes, checkouts } = places;
  return refusalOf(path, {
    home: hostHome.home,
    socket,
    userHomes,
    // Scripts that run on the host may be mounted read-only.
    checkouts: readOnly ? [] : checkouts,
  });
}

/** A readable session name that is unique to a project's path. */
export function sessionName(path: string): string {
  const stem = basename(path)
    .replace(/[^A-Za-z0-9_-]+/g, "-")
    .replace(/^[^A-Za-z0-9]+|-+$/g, "")
    .slice(0, 40);
  return `claudy-${stem || "project"}-${pathDigest(path)}`;
}

/** The name of a project's own database in ChromaDB. */
export const projectDatabase = sessionName;

/** The name in version 0.5: not shortened, and each invalid character was replaced. */
export function formerSessionName(path: string): string {
  const stem = basename(path).replace(/[^A-Za-z0-9_-]/g, "-");
  return `claudy-${stem}-${pathDigest(path)}`;
}

/** The first 8 hex digits of a path's SHA-256. */
export function pathDigest(path: string): string {
  return createHash("sha256").update(path).digest("hex").slice(0, 8);
}

const checkPath = "Check the spelling, or create the directory with mkdir.";

const pathFaults: Record<string, [FailureKind, reason: string, hint?: string]> =
  {
    ENOENT: ["notFound", "there is no such file or directory", checkPath],
    ENOTDIR: ["usage", "a part of it is not a directory", checkPath],
    EACCES: [
      "failed",
      "permission denied",
      "Check the owner and mode of each directory in it: ls -ld DIR",
    ],
    EAGAIN: ["failed", "it is being moved or replaced", "Try again."],
    ELOOP: [
      "usage",
      "it has too many symbolic links",
      "See where they lead: namei PATH",
    ],
    ENAMETOOLONG: ["usage", "it is too long"],
    ERR_INVALID_ARG_VALUE: ["usage", "it has a null byte"],
  };

function pathFailure(subject: string, error: unknown): Failure {
  if (error instanceof Failure) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  const [kind, reason, hint] = pathFaults[code ?? ""] ?? ["failed", message];
  return new Failure(kind, `${subject}: ${reason}`, { cause: error, hint });
}
