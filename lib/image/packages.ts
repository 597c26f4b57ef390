// The npm packages that are copied into images: which ones, where they are installed, and
// how they are verified.

import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readFile, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import * as v from "valibot";
import { $ } from "zx/core";
import { moduleDirectories } from "../std/checkout.ts";
import { Failure } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import type { BuildPlaces } from "./places.ts";
import { recipes } from "./recipes.ts";

/** Maps Docker's names of architectures to npm's. */
const npmCpus: Record<string, string> = { amd64: "x64", arm64: "arm64" };

export function cpuOf(arch: string): string {
  const cpu = npmCpus[arch];
  if (cpu !== undefined) return cpu;
  throw new Failure("failed", `Cannot build images for ${arch}`, {
    hint: "Claude CLI and Deno exist for amd64 and arm64.",
  });
}

/** The packages with native programs or libraries. */
export const nativePackages = {
  claude: (cpu: string) => `@anthropic-ai/claude-code-linux-${cpu}`,
  deno: (cpu: string) => `@deno/linux-${cpu}-glibc`,
  chromadb: (cpu: string) => `chromadb-js-bindings-linux-${cpu}-gnu`,
};

const lockfileSchema = v.object({
  packages: v.record(
    v.string(),
    v.looseObject({
      version: v.optional(v.string()),
      integrity: v.optional(v.string()),
    }),
  ),
});

type Lockfile = v.InferOutput<typeof lockfileSchema>;

export async function readLockfile(path: string): Promise<Lockfile> {
  return v.parse(lockfileSchema, JSON.parse(await readFile(path, "utf8")));
}

/**
 * The part of a lockfile that images depend on, for all architectures. npm does not pack
 * package-lock.json.
 */
export function imagePackages(lockfile: Lockfile): Lockfile {
  const names = Object.values(npmCpus)
    .flatMap((cpu) => recipes.flatMap(({ packages }) => packages(cpu)));
  return part(lockfile, [...new Set(names)]);
}

function part({ packages }: Lockfile, names: string[]): Lockfile {
  const paths = names.map((name) => `node_modules/${name}`).sort();
  return {
    packages: Object.fromEntries(
      paths.map((path) => [path, packages[path] ?? {}]),
    ),
  };
}

/** Looks up the integrity of packages in the lockfile. */
export async function lockedIntegrities(
  path: string,
): Promise<(name: string) => string> {
  const { packages } = await readLockfile(path);
  return (name) => {
    const integrity = packages[`node_modules/${name}`]?.integrity;
    if (integrity) return integrity;
    throw new Failure(
      "failed",
      `${basename(path)} has no integrity for ${name}`,
    );
  };
}

/**
 * Returns where each native package for `cpu` is: among this package's dependencies, or
 * fetched and verified by npm.
 */
export async function locatePackages(
  { root, lockfile, work }: BuildPlaces,
  cpu: string,
  log: Log,
): Promise<(name: string) => string> {
  const places = moduleDirectories(root);
  const directory = join(work, `npm-linux-${cpu}`);
  const holder = (name: string) =>
    places.find((place) => existsSync(join(place, name)));
  const needed = Object.values(nativePackages).map((nameFor) => nameFor(cpu));
  if (!needed.every(holder)) {
    log(`Fetching npm packages for linux ${cpu}`);
    const locked = await readLockfile(lockfile);
    for (const name of needed) {
      if (!holder(name)) await fetchPackage(directory, locked, name);
    }
    places.unshift(join(directory, "node_modules"));
  }
  return (name) => join(holder(name) ?? "", name);
}

/** Fetches a package of another platform, which `npm ci` of an older npm leaves out. */
async function fetchPackage(
  directory: string,
  lockfile: Lockfile,
  name: string,
): Promise<void> {
  const { version, integrity = "" } =
    lockfile.packages[`node_modules/${name}`] ?? {};
  const own = join(directory, "node_modules", name);
  const part = join(directory, "part"); // complete only when it is renamed
  await rm(part, { recursive: true, force: true });
  await mkdir(part, { recursive: true });
  await mkdir(dirname(own), { recursive: true });
  const shell = $({ cwd: directory, quiet: true });
  const { stdout } = await shell`npm pack --silent ${name}@${version}`;
  const archive = join(directory, stdout.trim().split("\n").at(-1) ?? "");
  try {
    await checkIntegrity(archive, integrity, name);
    await shell`tar -xzf ${archive} -C ${part} --strip-components=1`;
    await rm(own, { recursive: true, force: true }); // of an earlier version
    await rename(part, own);
  } finally {
    await rm(archive, { force: true });
  }
}

/** https://www.w3.org/TR/SRI/ */
export async function checkIntegrity(
  file: string,
  integrity: string,
  name: string,
): Promise<void> {
  const [algorithm = "", digest] = integrity.split("-");
  const hash = createHash(algorithm || "sha512").update(await readFile(file));
  if (hash.digest("base64") === digest) return;
  throw new Failure(
    "failed",
    `Cannot fetch ${name}: what npm has differs from the lockfile`,
    { hint: "Check the registry that npm uses: npm config get registry" },
  );
}

/** The directory of a package of any architecture, for example of "chromadb". */
export function packageDirectory(root: string, name: string): string {
  const found = moduleDirectories(root).map((place) => join(place, name))
    .find((directory) => existsSync(directory));
  if (found !== undefined) return found;
  throw new Failure("failed", `The npm package ${name} is not installed`, {
    hint: `Run: cd ${root} && npm ci`,
  });
}
