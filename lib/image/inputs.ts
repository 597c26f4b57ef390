// What goes into the images: packages of the lockfile and the bundled scripts,
// laid out under build/image, from where the Dockerfiles copy.

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

/** Docker's name for an architecture to npm's. */
const npmCpu: Record<string, string> = { amd64: "x64", arm64: "arm64" };

/** Lays out build/image for an engine of `arch`. */
export async function stageInputs(
  root: string,
  arch: string,
  log: Log,
): Promise<void> {
  const cpu = cpuOf(arch);
  const packages = await packagesFor(root, cpu, log);
  const target = join(root, "build", "image");
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
  // Images have the modes of the checkout, which a umask may have kept to one user.
  await $({ quiet: true })`chmod -R go+rX ${target} ${join(root, "docker")}`;
}

/**
 * What an image is made of, as one digest: the engine's cache would find out as
 * well, but only after it was sent 400 MB. `below` stands for what it is built
 * on.
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
    const scripts = join(root, "build", "image", "scripts");
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

/** The integrity that the lockfile holds for a package. */
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
      `package-lock.json has no integrity of ${name}`,
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
 * A node_modules for the engine's architecture: the checkout's own where it
 * holds that, else one that npm installs, and checks, for it.
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
  // They are optional to npm: one that is damaged is left out in silence.
  throw new Failure(
    "failed",
    `Cannot fetch ${needed.join(", ")} as package-lock.json has them`,
    { hint: `See why: cd ${directory} && npm ci --loglevel=verbose` },
  );
}

/** A link where the file system allows one: these are hundreds of megabytes. */
async function place(from: string, to: string): Promise<void> {
  await mkdir(dirname(to), { recursive: true });
  try {
    await link(from, to);
  } catch {
    await copyFile(from, to);
  }
}
