// Paths of the host, looked at from wherever this program runs: the host
// itself, or a container that has the host's directories below a mount point.

import {
  lstatSync,
  readFileSync,
  readlinkSync,
  type Stats,
  statSync,
} from "node:fs";
import { dirname, isAbsolute, join } from "node:path";
import * as v from "valibot";

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
});

export type HostPath = v.InferOutput<typeof hostPathSchema>;

/** As many as the kernel follows, path_resolution(7). */
const maximumLinks = 40;

/**
 * What is at an absolute path of the host; undefined where it lies outside of
 * what can be seen. Throws what lstat throws.
 */
export function lookAt(path: string, view: HostView): HostPath | undefined {
  let real: string;
  try {
    real = realpathBeneath(view.mount, path);
  } catch (error) {
    // Where a part is out of sight, its absence says nothing.
    const at = (error as { hostPath?: string }).hostPath ?? path;
    if (!isVisible(at, view)) return undefined;
    throw error;
  }
  if (!isVisible(real, view)) return undefined;
  const stat = statSync(view.mount + real);
  const kind = stat.isDirectory()
    ? "directory"
    : stat.isFile()
    ? "file"
    : "other";
  return { path: real, kind, uid: stat.uid, gid: stat.gid };
}

/**
 * The real path of `path` where `root` is taken for `/`: no link leads out.
 * Throws what lstat throws, with the host's path as `hostPath`.
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
    return lstatSync(root + path).isSymbolicLink()
      ? readlinkSync(root + path)
      : undefined;
  } catch (error) {
    throw Object.assign(error as Error, { hostPath: path });
  }
}

/**
 * The text of a file that a worker may have laid: "" for what is no plain file,
 * or larger than people write by hand.
 */
export function readSmallFile(path: string): string {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  return stat && isSmallFile(stat) ? readFileSync(path, "utf8") : "";
}

export function isSmallFile(stat: Stats): boolean {
  return stat.isFile() && stat.size < 8192;
}

export function isWithin(path: string, directory: string): boolean {
  return directory === "/" || path === directory ||
    path.startsWith(`${directory}/`);
}

function isVisible(path: string, { roots }: HostView): boolean {
  return roots === undefined || roots.some((root) => isWithin(path, root));
}
