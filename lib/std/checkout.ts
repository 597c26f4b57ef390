// The clone or the installed package that this program runs from.

import { existsSync, realpathSync } from "node:fs";
import { basename, dirname, join } from "node:path";

/** The root of this script or bundle's package; "/" in an image, which has none. */
export const checkout = above(realpathSync(import.meta.dirname));

/**
 * Whether npm installed this package. It then has bundles instead of sources, and may
 * belong to another user: nothing is written into it.
 */
export const isInstalled = checkout !== "/" &&
  !existsSync(join(checkout, "lib"));

/** The path of a script's program, for example of "coordinator". */
export function programOf(script: string): string {
  return isInstalled
    ? join(checkout, "dist", "bin", `${script}.js`)
    : join(checkout, "scripts", `${script}.ts`);
}

/**
 * The directories in which Node looks for a package's dependencies, the nearest first:
 * npm may place them beside the package.
 * https://nodejs.org/api/modules.html#loading-from-node_modules-folders
 */
export function moduleDirectories(root = checkout): string[] {
  const above = dirname(root) === root ? [] : moduleDirectories(dirname(root));
  return basename(root) === "node_modules"
    ? above
    : [join(root, "node_modules"), ...above];
}

/** The prefix of a global installation by npm; undefined for any other. */
export function installationPrefix(root = checkout): string | undefined {
  return /^(.*)\/lib\/node_modules\/[^/]+$/.exec(root)?.[1];
}

function above(directory: string): string {
  const here = existsSync(join(directory, "package.json"));
  return here || directory === "/" ? directory : above(dirname(directory));
}
