// Lists the files of a build context that are sent to the engine, for the image's digest.

import { createHash } from "node:crypto";
import { lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";

const ignoreFile = ".dockerignore";

/** Sent to the engine even if they are ignored. */
const alwaysSent = ["Dockerfile", ignoreFile];

/**
 * Names, modes and digests of all files in the context, except those that .dockerignore
 * excludes, since they do not affect the image.
 */
export async function contextParts(context: string): Promise<string[]> {
  const names = readdirSync(context, { recursive: true, encoding: "utf8" });
  const sent = await ignoreFilter(context, names);
  return names.filter((name) => alwaysSent.includes(name) || sent(name))
    .sort()
    .flatMap((name) => {
      const path = join(context, name);
      const stat = lstatSync(path);
      if (stat.isSymbolicLink()) return [name, readlinkSync(path)];
      if (!stat.isFile()) return [name];
      const content = createHash("sha256").update(readFileSync(path));
      return [name, `${stat.mode & 0o777}`, content.digest("hex")];
    });
}

/** https://docs.docker.com/build/concepts/context/#dockerignore-files */
async function ignoreFilter(
  context: string,
  names: string[],
): Promise<(name: string) => boolean> {
  if (!names.includes(ignoreFile)) return () => true;
  // Loaded lazily: most contexts have no such file.
  const { default: { default: ignore } } = await import("@balena/dockerignore");
  return ignore({ ignorecase: false })
    .add(readFileSync(join(context, ignoreFile), "utf8"))
    .createFilter();
}
