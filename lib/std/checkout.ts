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
 * The directories in which npm places a package's dependencies, the nearest first: in the
 * package, or beside it. Node also looks further above, where others may be able to write,
 * as in /tmp/node_modules.
 */
export function moduleDirectories(root = checkout): string[] {
  return [join(root, "node_modules"), ...enclosing(root)];
}

function enclosing(path: string): string[] {
  const above = dirname(path);
  if (above === path) return [];
  return basename(above) === "node_modules"
    ? [above, ...enclosing(above)]
    : enclosing(above);
}

/** The prefix of a global installation by npm; undefined for any other. */
export function installationPrefix(root = checkout): string | undefined {
  return /^(.*)\/lib\/node_modules\/[^/]+$/.exec(root)?.[1];
}

function above(directory: string): string {
  const here = existsSync(join(directory, "package.json"));
  return here || directory === "/" ? directory : above(dirname(directory));
}
