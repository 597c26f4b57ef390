// Identifies the sources of this program: many builds have the same version.

import process from "node:process";

/** Set when a bundle is built, see bundle.ts. */
declare const bundledDigest: string | undefined;

/** Eight hex digits that identify the running bundle, or else the checkout. */
export async function buildDigest(): Promise<string> {
  if (typeof bundledDigest === "string") return bundledDigest;
  const { checkout } = await import("./checkout.ts");
  return sourceDigest(checkout);
}

/** Depends only on names and contents of the sources, not on their timestamps. */
export function sourceDigest(root: string): string {
  // Loaded lazily: bundles do not need these modules, and each takes milliseconds to load.
  const { createHash } = process.getBuiltinModule("node:crypto");
  const { readdirSync, readFileSync } = process.getBuiltinModule("node:fs");
  const { join, relative, sep } = process.getBuiltinModule("node:path");
  const digest = createHash("sha256");
  const files = ["package.json", "package-lock.json"];
  for (const directory of ["docker", "lib", "scripts"]) {
    const entries = readdirSync(join(root, directory), {
      recursive: true,
      withFileTypes: true,
    });
    files.push(
      // Links are only further names.
      ...entries.filter((entry) => entry.isFile())
        .map(({ parentPath, name }) => relative(root, join(parentPath, name))),
    );
  }
  const staged = join("docker", "build", sep);
  const names = files.filter((file) =>
    /\.|\bDockerfile|launch$/.test(file) && !file.startsWith(staged)
  );
  for (const name of names.sort()) {
    const text = readFileSync(join(root, name));
    digest.update(`${name.split(sep).join("/")}\0${text.length}\0`).update(
      text,
    );
  }
  return digest.digest("hex").slice(0, 8);
}
