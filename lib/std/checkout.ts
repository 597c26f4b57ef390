// The checkout that this program runs from.

import { existsSync, realpathSync } from "node:fs";
import { dirname, join } from "node:path";

/** Of this script, or of the bundle of it; "/" in an image, where there is none. */
export const checkout = above(realpathSync(import.meta.dirname));

function above(directory: string): string {
  const here = existsSync(join(directory, "package.json"));
  return here || directory === "/" ? directory : above(dirname(directory));
}
