// Inspects paths of the host, either on the host itself or in a container that has the
// host's directories below a mount point.

import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readlinkSync,
  type Stats,
  statSync,
} from "node:fs";
import { dirname, isAbsolute, join } from "node:path";
import * as v from "valibot";
import { hasProc } from "./proc.ts";
import { plainText } from "./plain-file.ts";

/** The host's directories that this program can see, and where. */
export interface HostView {
  /** Prefix that turns a host path into a path of this program. */
  mount: string;
  /** Host paths that are visible; undefined for all. */
  roots: string[] | undefined;
}

export const hostPathSchema = v.object({
  /** Absolute, with links resolved. */
  path: v.string(),
  kind: v.picklist(["directory", "file", "other"]),
  uid: v.number(),
  gid: v.number(),
  /** Device and inode number, as stat's %d:%i. */
  inode: v.string(),
});

export type HostPath = v.InferOutput<typeof hostPathSchema>;

/** The kernel's limit, see path_resolution(7). */
const maximumLinks = 40;

/**
 * Inspects an absolute path of the host; undefined if it is outside of the visible
 * roots. Throws the errors of readlink, and EAGAIN if the path keeps being replaced.
 */
export function lookAt(path: string, view: HostView): HostPath | undefined {
  return holding(path, view, ({ found }) => found);
}

/** A file held open by a descriptor, even if its path is replaced meanwhile. */
export interface Held {
  found: HostPath;
  /** A path that leads to the held file or directory, and to its entries. */
  at: string;
}

/** How often to retry if a path is replaced while it is resolved. */
const attempts = 5;
/** From <fcntl.h>; not defined by Node. */
const O_PATH = 0o10000000;

/**
 * Calls `act` with the result of lookAt() while a descriptor holds the file open, where
 * there is a /proc. Otherwise, between resolving and using a path, anyone who can write to one of its
 * directories could replace it by a link to another place.
 */
export function holding<T>(
  path: string,
  view: HostView,
  act: (held: Held) => T,
): T | undefined {
  for (let attempt = 0; attempt < attempts; attempt++) {
    const real = visiblePath(path, view);
    if (real === undefined) return undefined;
    const reached = view.mount === "" ? real : join(view.mount, real);
    if (!hasProc()) {
      const stat = lstatSync(reached, { bigint: true });
      return act({ found: foundAt(real, stat), at: reached });
    }
    const file = openHeld(reached);
    if (file === undefined) continue;
    try {
      const at = `/proc/self/fd/${file}`;
      if (readlinkSync(at) !== withoutSlash(reached)) continue;
      const stat = fstatSync(file, { bigint: true });
      if (stat.isSymbolicLink()) continue; // it was replaced by a link
      return act({ found: foundAt(real, stat), at });
    } finally {
      closeSync(file);
    }
  }
  throw Object.assign(new Error("it is being replaced"), { code: "EAGAIN" });
}

function foundAt(path: string, stat: BigIntStats): HostPath {
  const kind = stat.isDirectory()
    ? "directory"
    : stat.isFile()
    ? "file"
    : "other";
  const { uid, gid } = stat;
  return {
    path,
    kind,
    uid: Number(uid),
    gid: Number(gid),
    inode: inodeIn(stat),
  };
}

/** Device and inode number of a path of this program, as stat's %d:%i. */
export function inodeOf(path: string): string {
  return inodeIn(statSync(path, { bigint: true }));
}

function inodeIn({ dev, ino }: BigIntStats): string {
  return `${dev}:${ino}`;
}

/** The real path; undefined if it is outside of the visible roots. */
function visiblePath(path: string, view: HostView): string | undefined {
  try {
    const real = realpathBeneath(view.mount, path);
    return isVisible(real, view) ? real : undefined;
  } catch (error) {
    // A part outside of the visible roots may exist on the host.
    const at = (error as { hostPath?: string }).hostPath ?? path;
    if (!isVisible(at, view)) return undefined;
    throw error;
  }
}

/** Opens a descriptor with O_PATH; undefined if the path has been removed or replaced. */
function openHeld(path: string): number | undefined {
  try {
    return openSync(path, O_PATH | constants.O_NOFOLLOW);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (["ENOENT", "ENOTDIR", "ELOOP"].includes(code ?? "")) return undefined;
    throw error;
  }
}

function withoutSlash(path: string): string {
  return path.replace(/(.)\/$/, "$1");
}

/**
 * The real path of `path` with `root` as `/`, so that no link leads out of it.
 * Throws the errors of readlink, with the host's path as `hostPath`.
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
    const target = linkTarget(root, next);
    if (target === undefined) {
      done = next;
      continue;
    }
    if (++links > maximumLinks) {
      throw Object.assign(new Error("too many links"), { code: "ELOOP" });
    }
    if (isAbsolute(target)) done = "/";
    rest = [...target.split("/"), ...rest];
  }
  return done;
}

function linkTarget(root: string, path: string): string | undefined {
  try {
    return readlinkSync(root + path);
  } catch (error) {
    // It exists and is not a link.
    if ((error as NodeJS.ErrnoException).code === "EINVAL") return undefined;
    throw Object.assign(error as Error, { hostPath: path });
  }
}

const maxBytes = 8192;

/**
 * The text of a file that a worker may have created: "" if it is not a plain file, or
 * if it is larger than files written by hand.
 */
export function readSmallFile(path: string): string {
  try {
    return plainText(path, { maxBytes: maxBytes - 1 }) ?? "";
  } catch {
    return ""; // it may not be read
  }
}

export function isSmallFile(stat: Stats): boolean {
  return stat.isFile() && stat.size < maxBytes;
}

export function isWithin(path: string, directory: string): boolean {
  return directory === "/" || path === directory ||
    path.startsWith(`${directory}/`);
}

function isVisible(path: string, { roots }: HostView): boolean {
  return roots === undefined || roots.some((root) => isWithin(path, root));
}
