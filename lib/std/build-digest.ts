// Which sources this program was made of: the version alone is the same for many.

import { readdirSync, readFileSync } from "node:fs";
import { join, sep } from "node:path";
import process from "node:process";

/** Of a bundle: set when it was made, see bundle.ts. */
declare const bundledDigest: string | undefined;

/** Eight hex digits, of the bundle that runs or of the checkout at `root`. */
export function buildDigest(root: string): string {
  return typeof bundledDigest === "string" ? bundledDigest : sourceDigest(root);
}

/** The same for the same sources, whatever their times are. */
export function sourceDigest(root: string): string {
  // Loaded here alone: no bundle needs it.
  const { createHash } = process.getBuiltinModule("node:crypto");
  const digest = createHash("sha256");
  const files = ["package.json", "package-lock.json"];
  for (const directory of ["docker", "lib", "scripts"]) {
    const entries = readdirSync(join(root, directory), { recursive: true });
    files.push(...entries.map((entry) => join(directory, String(entry))));
  }
  const names = files.filter((file) => /\.|\bDockerfile|launch$/.test(file));
  for (const name of names.sort()) {
    let text: Uint8Array;
    try {
      text = readFileSync(join(root, name));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EISDIR") continue;
      throw error;
    }
    digest.update(`${name.split(sep).join("/")}\0${text.length}\0`).update(
      text,
    );
  }
  return digest.digest("hex").slice(0, 8);
}
