// Stages the inputs of images that are not in docker/: packages and bundled scripts.

import { createHash } from "node:crypto";
import {
  copyFile,
  cp,
  link,
  mkdir,
  readdir,
  readFile,
  rm,
} from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { $ } from "zx/core";
import {
  bundleChromadb,
  bundleScripts,
  imageSources,
} from "../machine/bundle.ts";
import type { Log } from "../std/log.ts";
import { removeTree } from "../std/remove-tree.ts";
import {
  cpuOf,
  locatePackages,
  lockedIntegrities,
  nativePackages,
  packageDirectory,
} from "./packages.ts";
import type { BuildPlaces } from "./places.ts";
import { type ImageRecipe, recipes } from "./recipes.ts";

/** Bundles the parent's programs, unless `npm pack` did. */
export async function stageScripts(
  { root, scripts, prebuilt }: BuildPlaces,
): Promise<void> {
  if (prebuilt !== undefined) return;
  await bundleScripts(root, await imageSources(root), scripts, { split: true });
}

/** Completes the build context for an engine of `arch`. */
export async function stageInputs(
  places: BuildPlaces,
  arch: string,
  log: Log,
): Promise<void> {
  const { root, context, prebuilt } = places;
  const cpu = cpuOf(arch);
  const directoryOf = await locatePackages(places, cpu, log);
  const target = join(context, "build");
  if (prebuilt !== undefined) await copyContext(places);
  const { claude, deno, chromadb } = nativePackages;
  await place(join(directoryOf(claude(cpu)), "claude"), join(target, "claude"));
  await place(join(directoryOf(deno(cpu)), "deno"), join(target, "deno"));
  const server = join(target, "chromadb");
  await rm(server, { recursive: true, force: true });
  const bindings = chromadb(cpu);
  await cp(directoryOf(bindings), join(server, "node_modules", bindings), {
    recursive: true,
  });
  const program = join(server, "chroma.mjs");
  if (prebuilt === undefined) {
    await bundleChromadb(packageDirectory(root, "chromadb"), program);
  } else await copyFile(join(prebuilt, "chroma.mjs"), program);
  // Files keep their modes in images, and a umask may have made them private.
  await $({ quiet: true })`chmod -R u+w,go+rX ${context}`;
}

/** Copies what an installed package has of the context, which may be read-only. */
async function copyContext(
  { root, context, scripts }: BuildPlaces,
): Promise<void> {
  await removeTree(context);
  await mkdir(context, { recursive: true });
  const files = recipes.flatMap(({ name, files }) => [
    `Dockerfile.${name}`,
    ...files,
  ]);
  for (const file of [".dockerignore", ...new Set(files)]) {
    await copyFile(join(root, "docker", file), join(context, file));
  }
  await cp(scripts, join(context, "build", "scripts"), { recursive: true });
}

/**
 * A digest of an image's inputs. The engine's build cache would detect changes as well,
 * but only after 400 MB were sent to it. `below` identifies the base image.
 */
export async function inputsDigest(
  { root, lockfile, scripts }: BuildPlaces,
  recipe: ImageRecipe,
  arch: string,
  below: string[],
): Promise<string> {
  const digest = createHash("sha256");
  const add = (text: string | Uint8Array) => digest.update(text).update("\0");
  for (const part of [arch, ...below]) add(part);
  const integrities = await lockedIntegrities(lockfile);
  for (const name of recipe.packages(cpuOf(arch))) {
    add(integrities(name));
  }
  for (const file of [`Dockerfile.${recipe.name}`, ...recipe.files]) {
    add(await readFile(join(root, "docker", file)));
  }
  if (recipe.scripts) {
    const entries = await readdir(scripts, {
      recursive: true,
      withFileTypes: true,
    });
    const files = entries.filter((entry) => entry.isFile())
      .map(({ parentPath, name }) => join(parentPath, name));
    for (const file of files.sort()) {
      add(relative(scripts, file));
      add(await readFile(file));
    }
  }
  return digest.digest("hex").slice(0, 16);
}

/** Hard-links a file if possible, else copies it: the files have hundreds of megabytes. */
async function place(from: string, to: string): Promise<void> {
  await mkdir(dirname(to), { recursive: true });
  await rm(to, { force: true });
  try {
    await link(from, to);
  } catch {
    await copyFile(from, to);
  }
}
