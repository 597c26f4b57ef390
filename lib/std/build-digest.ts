// Which sources this program was made of: the version alone is the same for many.

import process from "node:process";

/** Of a bundle: set when it was made, see bundle.ts. */
declare const bundledDigest: string | undefined;

/** Eight hex digits, of the bundle that runs or else of the checkout. */
export async function buildDigest(): Promise<string> {
  if (typeof bundledDigest === "string") return bundledDigest;
  const { checkout } = await import("./checkout.ts");
  return sourceDigest(checkout);
}

/** The same for the same sources, whatever their times are. */
export function sourceDigest(root: string): string {
  // Loaded here alone: no bundle needs them, and each costs milliseconds.
  const { createHash } = process.getBuiltinModule("node:crypto");
  const { readdirSync, readFileSync } = process.getBuiltinModule("node:fs");
  const { join, sep } = process.getBuiltinModule("node:path");
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
