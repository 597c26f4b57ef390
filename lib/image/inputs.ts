// Stages the inputs of images, packages of the lockfile and bundled scripts, in
// docker/build, from where the Dockerfiles copy them.

import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
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
  bundleModule,
  bundleScripts,
  imageSources,
} from "../machine/bundle.ts";
import * as v from "valibot";
import { Failure } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import type { ImageRecipe } from "./recipes.ts";

/** Maps Docker's names of architectures to npm's. */
const npmCpu: Record<string, string> = { amd64: "x64", arm64: "arm64" };

/** Fills docker/build for an engine of `arch`. */
export async function stageInputs(
  root: string,
  arch: string,
  log: Log,
): Promise<void> {
  const cpu = cpuOf(arch);
  const packages = await packagesFor(root, cpu, log);
  const target = join(root, "docker", "build");
  await rm(target, { recursive: true, force: true });
  const bindings = `chromadb-js-bindings-linux-${cpu}-gnu`;
  await place(
    join(packages, "@anthropic-ai", `claude-code-linux-${cpu}`, "claude"),
    join(target, "claude"),
  );
  await place(
    join(packages, "@deno", `linux-${cpu}-glibc`, "deno"),
    join(target, "deno"),
  );
  await cp(
    join(packages, bindings),
    join(target, "chromadb", "node_modules", bindings),
    { recursive: true },
  );
  await bundleModule(
    join(packages, "chromadb", "dist", "cli.mjs"),
    join(target, "chromadb", "chroma.mjs"),
  );
  const scripts = join(target, "scripts");
  await bundleScripts(root, await imageSources(root), scripts, { split: true });
  // Files keep their modes in images, and a umask may have made them private.
  await $({ quiet: true })`chmod -R go+rX ${join(root, "docker")}`;
}

/**
 * A digest of an image's inputs. The engine's build cache would detect changes as well,
 * but only after 400 MB were sent to it. `below` identifies the base image.
 */
export async function inputsDigest(
  root: string,
  recipe: ImageRecipe,
  arch: string,
  below: string[],
): Promise<string> {
  const digest = createHash("sha256");
  const add = (text: string | Uint8Array) => digest.update(text).update("\0");
  for (const part of [arch, ...below]) add(part);
  const integrities = await lockedIntegrities(root);
  for (const name of recipe.packages(cpuOf(arch))) {
    add(integrities(name));
  }
  for (const file of [`Dockerfile.${recipe.name}`, ...recipe.files]) {
    add(await readFile(join(root, "docker", file)));
  }
  if (recipe.scripts) {
    const scripts = join(root, "docker", "build", "scripts");
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

const lockfileSchema = v.object({
  packages: v.record(
    v.string(),
    v.object({ integrity: v.optional(v.string()) }),
  ),
});

/** Looks up the integrity of packages in the lockfile. */
async function lockedIntegrities(
  root: string,
): Promise<(name: string) => string> {
  const text = await readFile(join(root, "package-lock.json"), "utf8");
  const { packages } = v.parse(lockfileSchema, JSON.parse(text));
  return (name) => {
    const integrity = packages[`node_modules/${name}`]?.integrity;
    if (integrity) return integrity;
    throw new Failure(
      "failed",
      `package-lock.json has no integrity for ${name}`,
    );
  };
}

function cpuOf(arch: string): string {
  const cpu = npmCpu[arch];
  if (cpu !== undefined) return cpu;
  throw new Failure("failed", `Cannot build images for ${arch}`, {
    hint: "Claude CLI and Deno exist for amd64 and arm64.",
  });
}

/**
 * A node_modules for the engine's architecture: the checkout's if it contains the
 * packages, otherwise a separate one, installed and verified by npm.
 */
async function packagesFor(
  root: string,
  cpu: string,
  log: Log,
): Promise<string> {
  const holdsAll = (directory: string) =>
    needed.every((name) => existsSync(join(directory, name)));
  const own = join(root, "node_modules");
  const needed = [
    `@anthropic-ai/claude-code-linux-${cpu}`,
    `@deno/linux-${cpu}-glibc`,
  ];
  if (holdsAll(own)) return own;
  const directory = join(root, "build", `npm-linux-${cpu}`);
  log(`Fetching npm packages for linux ${cpu}`);
  await mkdir(directory, { recursive: true });
  for (const file of ["package.json", "package-lock.json", ".npmrc"]) {
    await copyFile(join(root, file), join(directory, file));
  }
  await $({
    cwd: directory,
    quiet: true,
  })`npm ci --os=linux --cpu=${cpu} --libc=glibc`;
  const packages = join(directory, "node_modules");
  if (holdsAll(packages)) return packages;
  // The packages are optional, so npm skips a damaged one without an error.
  throw new Failure(
    "failed",
    `Cannot fetch ${needed.join(", ")} as package-lock.json has them`,
    { hint: `See why: cd ${directory} && npm ci --loglevel=verbose` },
  );
}

/** Hard-links a file if possible, else copies it: the files have hundreds of megabytes. */
async function place(from: string, to: string): Promise<void> {
  await mkdir(dirname(to), { recursive: true });
  try {
    await link(from, to);
  } catch {
    await copyFile(from, to);
  }
}
