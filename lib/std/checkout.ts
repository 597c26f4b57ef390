// The checkout that this program runs from.

import { existsSync, realpathSync } from "node:fs";
import { dirname, join } from "node:path";

/** The checkout of this script or bundle; "/" in an image, which has no checkout. */
export const checkout = above(realpathSync(import.meta.dirname));

function above(directory: string): string {
  const here = existsSync(join(directory, "package.json"));
  return here || directory === "/" ? directory : above(dirname(directory));
}
