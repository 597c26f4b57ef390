// The Debian base image, pulled from a registry or built locally.

import { readFileSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { $ } from "zx/core";
import { type Docker, inspectImage } from "../docker/docker.ts";
import { aptInstall, asRoot } from "../machine/as-root.ts";
import { Failure } from "../std/errors.ts";
import type { RunStep } from "../std/log.ts";
import { megabytes } from "../std/units.ts";
import { recipes } from "./recipes.ts";

const registryBase = "debian:trixie-slim";

/** An image that is built with mmdebstrap if there is no registry. */
export interface LocalBase {
  name: string;
  /** In addition to Debian's essential packages and apt. */
  packages: string[];
}

/** For profiles, which copy all of it. */
export const profilesBase: LocalBase = {
  name: "hal9000-debian:trixie",
  packages: ["ca-certificates"],
};

/** The name of the base of our images. */
const imagesBaseName = "hal9000-base:trixie";

/** All images that are built with mmdebstrap; all instances use them. */
export const localBases = [imagesBaseName, profilesBase.name];

/** For our images: with all their packages, so that these are fetched and installed once. */
export function imagesBase(root: string): LocalBase {
  const packages = recipes.flatMap(({ name }) =>
    debianPackages(
      readFileSync(join(root, "docker", `Dockerfile.${name}`), "utf8"),
    )
  );
  return {
    name: imagesBaseName,
    packages: [...new Set(packages)].sort(),
  };
}

/** The Debian packages that a Dockerfile installs. */
export function debianPackages(dockerfile: string): string[] {
  const list = /^ARG PACKAGES="(.+)"$/m.exec(dockerfile)?.[1];
  return list?.split(" ") ?? [];
}

const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";

export interface BaseImage {
  name: string;
  id: string;
  sizeBytes: number;
}

/**
 * The base image if it is present; otherwise pulls it, or builds it in `directory` if no
 * registry can be reached. All users may write to `directory`, such as /tmp. With `noCache`
 * a local one is built again, since its packages may be outdated.
 */
export async function baseImage(
  docker: Docker,
  local: LocalBase,
  { arch, directory, noCache = false }: {
    arch: string;
    directory: string;
    noCache?: boolean;
  },
  step: RunStep,
): Promise<BaseImage> {
  const present = await presentBase(docker, local, noCache);
  if (present) return present;
  return await step("Debian base", async (log) => {
    log(`Pulling ${registryBase}`);
    const pull = await $({
      nothrow: true,
      quiet: true,
    })`docker pull ${registryBase}`;
    if (pull.exitCode !== 0) {
      log(
        `Cannot pull ${registryBase}: building ${local.name} with mmdebstrap`,
      );
      await debootstrap(local, arch, directory);
    }
    const base = await find(docker, registryBase) ??
      await find(docker, local.name);
    if (!base) throw new Failure("failed", `Cannot find ${registryBase}`);
    return base;
  }, ({ name, sizeBytes }) => `${name}, ${megabytes(sizeBytes)}`);
}

/** The base image if it is present. */
export async function presentBase(
  docker: Docker,
  { name }: LocalBase,
  noCache = false,
): Promise<BaseImage | undefined> {
  return await find(docker, registryBase) ??
    (noCache ? undefined : await find(docker, name));
}

async function find(
  docker: Docker,
  name: string,
): Promise<BaseImage | undefined> {
  const image = await inspectImage(docker, name);
  return image && { name, id: image.Id, sizeBytes: image.Size };
}

/**
 * Leaves documentation out, as Debian's own image does. Not by mmdebstrap's --dpkgopt: it
 * then filters all essential packages with a Perl script, which takes a third longer.
 */
const withoutDocumentation = [
  `--essential-hook='printf "path-exclude=/usr/share/%s/*\\n" doc info locale man ` +
  `>"$1/etc/dpkg/dpkg.cfg.d/hal9000"'`,
  `--customize-hook='cd "$1/usr/share" && rm -rf doc/* info/* locale/* man/*'`,
].join(" ");

async function debootstrap(
  { name, packages }: LocalBase,
  arch: string,
  directory: string,
): Promise<void> {
  await mkdir(directory, { recursive: true });
  const own = await mkdtemp(join(directory, "hal9000-base-"));
  const tarball = join(own, "base.tar");
  try {
    const here = await $({ nothrow: true, quiet: true })`command -v mmdebstrap`;
    if (here.exitCode !== 0) {
      await aptInstall(["mmdebstrap", "debian-archive-keyring"]);
    }
    await asRoot(
      // As in Debian's own image: a build that breaks off starts again from its base.
      `mmdebstrap --quiet --variant=apt --include=${packages.join(",")} ` +
        `--dpkgopt=force-unsafe-io --aptopt='Acquire::Retries "3"' ` +
        `${withoutDocumentation} ` +
        `--keyring=${keyring} --architectures=${arch} trixie '${tarball}'`,
    );
    await $({ quiet: true })`docker import ${tarball} ${name}`;
  } catch (error) {
    const why = error instanceof Failure ? `: ${error.message}` : "";
    throw new Failure("failed", `Cannot build ${name}${why}`, {
      cause: error,
      hint:
        `Make ${registryBase} available to the engine, then run it again. ` +
        "Or load images of another machine: claudy images load FILE",
    });
  } finally {
    await rm(own, { recursive: true, force: true });
  }
}
