// Where images are built: a clone stages their inputs in itself, an installed package, which
// may be read-only, below HAL9000_HOME.

import { join } from "node:path";
import type { HomePaths } from "../instance/paths.ts";
import { checkout, isInstalled } from "../std/checkout.ts";

export interface BuildPlaces {
  /** The package, with docker/ and node_modules. */
  root: string;
  /** Lists the integrities of the packages in images. */
  lockfile: string;
  /** The build context; its inputs that are not in docker/ are staged in its build/. */
  context: string;
  /** The bundles of the parent's image. */
  scripts: string;
  /** What `npm pack` has bundled; undefined in a clone. */
  prebuilt: string | undefined;
  /** Holds the lock, and packages for other architectures. */
  work: string;
  /** The log of the last build of an image. */
  log: (image: string) => string;
}

/** The places of this program. */
export function buildPlaces(home: HomePaths): BuildPlaces {
  return isInstalled ? installedPlaces(checkout, home) : clonePlaces(checkout);
}

export function clonePlaces(root: string): BuildPlaces {
  return {
    root,
    lockfile: join(root, "package-lock.json"),
    context: join(root, "docker"),
    scripts: join(root, "docker", "build", "scripts"),
    prebuilt: undefined,
    work: join(root, "build"),
    log: (image) => join(root, "build", `image-${image}.log`),
  };
}

export function installedPlaces(root: string, home: HomePaths): BuildPlaces {
  const prebuilt = join(root, "dist");
  return {
    root,
    lockfile: join(prebuilt, "packages.json"),
    context: join(home.build, "context"),
    scripts: join(prebuilt, "image"),
    prebuilt,
    work: home.build,
    log: (image) => home.buildLog(`image-${image}`),
  };
}
