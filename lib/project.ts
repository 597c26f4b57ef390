// A project's directory: where it really is, whose it is, and whether a worker
// may have it.

import { createHash } from "node:crypto";
import { lstatSync, readlinkSync, statSync } from "node:fs";
import { basename, dirname, isAbsolute, join, resolve } from "node:path";
import { Failure, type FailureKind } from "./errors.ts";
import type { ProjectView } from "./instance.ts";
import type { Owner } from "./owned.ts";

export interface Project extends Owner {
  /** Absolute, without links, as the host knows it. */
  path: string;
}

/** As many as the kernel follows, path_resolution(7). */
const maximumLinks = 40;

/** Neither these nor what lies in them is ever a project. */
const systemTrees = [
  "/bin",
  "/boot",
  "/dev",
  "/etc",
  "/lib",
  "/lib32",
  "/lib64",
  "/proc",
  "/run",
  "/sbin",
  "/sys",
  "/var/lib",
  "/var/log",
  "/var/run",
];

/** Not these themselves; a directory in them may be one. */
const systemDirectories = [
  "/",
  "/home",
  "/media",
  "/mnt",
  "/opt",
  "/srv",
  "/tmp",
  "/usr",
  "/usr/bin",
  "/usr/lib",
  "/usr/local",
  "/usr/sbin",
  "/usr/share",
  "/var",
  "/var/tmp",
];

/** The project at `path`; throws a Failure where there is none to be had. */
export function resolveProject(
  path: string,
  view: ProjectView,
  cwd: string,
): Project {
  if (view.mount !== "" && !isAbsolute(path)) {
    throw new Failure(
      "usage",
      `Cannot use "${path}" as project: inside the parent it must be an absolute path of the host`,
    );
  }
  const wanted = resolve(cwd, path);
  try {
    const real = realpathBeneath(view.mount, wanted);
    if (!isVisible(real, view)) throw outside(wanted, view);
    const stat = statSync(view.mount + real);
    if (!stat.isDirectory()) {
      throw new Failure(
        "usage",
        `Cannot use "${path}" as project: it is not a directory`,
      );
    }
    return { path: real, uid: stat.uid, gid: stat.gid };
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw pathFailure(path, wanted, view, error as NodeJS.ErrnoException);
  }
}

/**
 * The real path of `path` where `root` is taken for `/`: no link leads out.
 * Throws what lstat throws.
 */
export function realpathBeneath(root: string, path: string): string {
  let rest = path.split("/");
  let done = "/";
  let links = 0;
  while (rest.length > 0) {
    const part = rest.shift() as string;
    if (part === "" || part === ".") continue;
    if (part === "..") {
      done = dirname(done);
      continue;
    }
    const next = join(done, part);
    if (!lstatSync(root + next).isSymbolicLink()) {
      done = next;
      continue;
    }
    if (++links > maximumLinks) {
      throw Object.assign(new Error("too many links"), { code: "ELOOP" });
    }
    const target = readlinkSync(root + next);
    if (isAbsolute(target)) done = "/";
    rest = [...target.split("/"), ...rest];
  }
  return done;
}

/**
 * Why a worker may not have `path`, undefined where it may. `socket` is the
 * engine's, `home` is HAL9000_HOME, both as the host knows them.
 */
export function refusalOf(
  path: string,
  { home, socket }: { home: string; socket: string },
): string | undefined {
  if (systemDirectories.includes(path)) return "it is a system directory";
  if (systemTrees.some((tree) => isWithin(path, tree))) {
    return "it is part of the system";
  }
  if (isWithin(path, home)) return "it is part of HAL9000_HOME";
  if (isWithin(home, path)) return `it contains HAL9000_HOME, ${home}`;
  if (isWithin(socket, path)) return "it contains the engine's socket";
  return undefined;
}

/** Throws an `unsafe` Failure for a path that a worker may not have. */
export function refuseUnsafe(
  path: string,
  secrets: { home: string; socket: string },
): void {
  const reason = refusalOf(path, secrets);
  if (reason === undefined) return;
  throw new Failure("unsafe", `Cannot use "${path}" as project: ${reason}`, {
    hint: "Choose a directory that holds the project alone.",
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

/** First 8 hex digits of a path's SHA-256. */
export function pathDigest(path: string): string {
  return createHash("sha256").update(path).digest("hex").slice(0, 8);
}

export function isWithin(path: string, directory: string): boolean {
  return directory === "/" || path === directory ||
    path.startsWith(`${directory}/`);
}

function isVisible(path: string, { roots }: ProjectView): boolean {
  return roots === undefined || roots.some((root) => isWithin(path, root));
}

function outside(path: string, view: ProjectView): Failure {
  return new Failure(
    "notFound",
    `Cannot look at "${path}" from inside the parent`,
    {
      hint: `It sees ${
        view.roots?.join(", ") || "no directories of the host"
      }; HAL9000_PROJECT_ROOTS says which. Or spawn from the host.`,
    },
  );
}

const pathFaults: Record<string, [FailureKind, string]> = {
  ENOENT: ["notFound", "there is no such directory"],
  ENOTDIR: ["usage", "a part of it is not a directory"],
  EACCES: ["failed", "permission denied"],
  ELOOP: ["usage", "it has too many symbolic links"],
  ENAMETOOLONG: ["usage", "it is too long"],
};

function pathFailure(
  path: string,
  wanted: string,
  view: ProjectView,
  error: NodeJS.ErrnoException,
): Failure {
  if (error.code === "ENOENT" && !isVisible(wanted, view)) {
    return outside(wanted, view);
  }
  const [kind, reason] = pathFaults[error.code ?? ""] ??
    ["failed", error.message];
  return new Failure(kind, `Cannot use "${path}" as project: ${reason}`, {
    cause: error,
  });
}
