// What a worker may be given: its project's directory, and what else of the
// host it asks for.

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
  /** Absolute, without links, as the host knows it. */
  path: string;
}

/** A path as a person gave it. */
export interface GivenPath {
  path: string;
  /** What a relative one is relative to. */
  cwd: string;
  /** As in "Cannot use "x" as project". */
  as: string;
  /** Whether the worker can only read it. */
  readOnly?: boolean;
  /** Whether what no worker should have is given all the same. */
  allowAny: boolean;
}

/** The project at a path; throws a Failure where there is none to be had. */
export async function resolveProject(
  instance: Instance,
  given: GivenPath,
): Promise<Project & HostPath> {
  const found = await resolveGiven(instance, given);
  if (found.kind !== "directory") {
    throw new Failure(
      "usage",
      `Cannot use "${given.path}" as ${given.as}: it is not a directory`,
    );
  }
  return found;
}

/** What is at a path that a worker may have; throws a Failure where it may not. */
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
        "Choose a directory that holds the project alone, or see --allow-any-path.",
    });
  }
  return found;
}

/**
 * A link in a project that leads out of it, if the path goes through one: a worker may
 * have laid it there, and would so choose what the next one is given.
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

/** Why a worker of the instance may not have `path`, undefined where it may. */
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
    // What runs on the host may be read.
    checkouts: readOnly ? [] : checkouts,
  });
}

/** A name for a project's path: legible, and no other path has the same. */
export function sessionName(path: string): string {
  const stem = basename(path)
    .replace(/[^A-Za-z0-9_-]+/g, "-")
    .replace(/^[^A-Za-z0-9]+|-+$/g, "")
    .slice(0, 40);
  return `claudy-${stem || "project"}-${pathDigest(path)}`;
}

/** The name that version 0.5 gave: of more characters, each for itself. */
export function formerSessionName(path: string): string {
  const stem = basename(path).replace(/[^A-Za-z0-9_-]/g, "-");
  return `claudy-${stem}-${pathDigest(path)}`;
}

/** First 8 hex digits of a path's SHA-256. */
export function pathDigest(path: string): string {
  return createHash("sha256").update(path).digest("hex").slice(0, 8);
}

const pathFaults: Record<string, [FailureKind, string]> = {
  ENOENT: ["notFound", "there is no such file or directory"],
  ENOTDIR: ["usage", "a part of it is not a directory"],
  EACCES: ["failed", "permission denied"],
  EAGAIN: ["failed", "it is being moved or replaced"],
  ELOOP: ["usage", "it has too many symbolic links"],
  ENAMETOOLONG: ["usage", "it is too long"],
  ERR_INVALID_ARG_VALUE: ["usage", "it has a null byte"],
};

function pathFailure(subject: string, error: unknown): Failure {
  if (error instanceof Failure) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  const [kind, reason] = pathFaults[code ?? ""] ?? ["failed", message];
  return new Failure(kind, `${subject}: ${reason}`, { cause: error });
}
