// Paths of the host, looked at from wherever this program runs: the host
// itself, or a container that has the host's directories below a mount point.

import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  openSync,
  readlinkSync,
  type Stats,
  statSync,
} from "node:fs";
import { dirname, isAbsolute, join } from "node:path";
import * as v from "valibot";
import { plainText } from "./plain-file.ts";

/** Which of the host's directories this program can look at, and where. */
export interface HostView {
  /** Put before a host path to reach it from here. */
  mount: string;
  /** Host paths that can be looked at; undefined for all. */
  roots: string[] | undefined;
}

export const hostPathSchema = v.object({
  /** Absolute, without links. */
  path: v.string(),
  kind: v.picklist(["directory", "file", "other"]),
  uid: v.number(),
  gid: v.number(),
  /** Device and inode number, as stat's %d:%i. */
  inode: v.string(),
});

export type HostPath = v.InferOutput<typeof hostPathSchema>;

/** As many as the kernel follows, path_resolution(7). */
const maximumLinks = 40;

/**
 * What is at an absolute path of the host; undefined where it lies outside of
 * what can be seen. Throws what readlink throws, EAGAIN where it is being replaced.
 */
export function lookAt(path: string, view: HostView): HostPath | undefined {
  return holding(path, view, ({ found }) => found);
}

/** A path that is held by a descriptor: whatever has its name by now. */
export interface Held {
  found: HostPath;
  /** Leads to what is held, and to what lies in it. */
  at: string;
}

/** As often as somebody may be replacing a path while it is resolved. */
const attempts = 5;
/** From <fcntl.h>; Node has no name for it. */
const O_PATH = 0o10000000;

/**
 * Calls `act` with what lookAt() gives, held by a descriptor meanwhile: between
 * resolving a path and looking at it, whoever can write one of its directories
 * could replace that by a link to somewhere else.
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
    const file = openHeld(reached);
    if (file === undefined) continue;
    try {
      const at = `/proc/self/fd/${file}`;
      if (readlinkSync(at) !== withoutSlash(reached)) continue;
      const stat = fstatSync(file, { bigint: true });
      if (stat.isSymbolicLink()) continue; // it has just become one
      const kind = stat.isDirectory()
        ? "directory"
        : stat.isFile()
        ? "file"
        : "other";
      const found: HostPath = {
        path: real,
        kind,
        uid: Number(stat.uid),
        gid: Number(stat.gid),
        inode: inodeIn(stat),
      };
      return act({ found, at });
    } finally {
      closeSync(file);
    }
  }
  throw Object.assign(new Error("it is being replaced"), { code: "EAGAIN" });
}

/** Device and inode number of a path of ours, as stat's %d:%i. */
export function inodeOf(path: string): string {
  return inodeIn(statSync(path, { bigint: true }));
}

function inodeIn({ dev, ino }: BigIntStats): string {
  return `${dev}:${ino}`;
}

/** The real path, undefined where it lies outside of what can be seen. */
function visiblePath(path: string, view: HostView): string | undefined {
  try {
    const real = realpathBeneath(view.mount, path);
    return isVisible(real, view) ? real : undefined;
  } catch (error) {
    // Where a part is out of sight, its absence says nothing.
    const at = (error as { hostPath?: string }).hostPath ?? path;
    if (!isVisible(at, view)) return undefined;
    throw error;
  }
}

/** A descriptor to look by; undefined where what was there has gone since. */
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
 * The real path of `path` where `root` is taken for `/`: no link leads out.
 * Throws what readlink throws, with the host's path as `hostPath`.
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
    // It is there, and no link.
    if ((error as NodeJS.ErrnoException).code === "EINVAL") return undefined;
    throw Object.assign(error as Error, { hostPath: path });
  }
}

const maxBytes = 8192;

/**
 * The text of a file that a worker may have laid: "" for what is no plain file,
 * or larger than people write by hand.
 */
export function readSmallFile(path: string): string {
  try {
    return plainText(path, { maxBytes: maxBytes - 1 }) ?? "";
  } catch {
    return ""; // it is not for us to read
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
