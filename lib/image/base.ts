// The Debian base image, pulled from a registry or built locally.

import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { $ } from "zx/core";
import { type Docker, inspectImage } from "../docker/docker.ts";
import { aptInstall, asRoot } from "../machine/as-root.ts";
import { Failure } from "../std/errors.ts";
import type { Log } from "../std/log.ts";

const registryBase = "debian:trixie-slim";
/** Built with mmdebstrap; not in any registry. */
const localBase = "hal9000-base:trixie";
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";

export interface BaseImage {
  name: string;
  id: string;
}

/**
 * The base image if it is present; otherwise pulls it, or builds it in `directory` if no
 * registry can be reached. All users may write to `directory`, such as /tmp.
 */
export async function baseImage(
  docker: Docker,
  arch: string,
  directory: string,
  log: Log,
): Promise<BaseImage> {
  const present = await find(docker, registryBase) ??
    await find(docker, localBase);
  if (present) return present;
  log(`Pulling ${registryBase}`);
  const pull = await $({
    nothrow: true,
    quiet: true,
  })`docker pull ${registryBase}`;
  if (pull.exitCode !== 0) {
    log(`Cannot pull it: building ${localBase} with mmdebstrap`);
    await debootstrap(arch, directory);
  }
  const base = await find(docker, registryBase) ??
    await find(docker, localBase);
  if (!base) throw new Failure("failed", `Cannot find ${registryBase}`);
  return base;
}

async function find(
  docker: Docker,
  name: string,
): Promise<BaseImage | undefined> {
  const image = await inspectImage(docker, name);
  return image && { name, id: image.Id };
}

async function debootstrap(arch: string, directory: string): Promise<void> {
  const here = await $({ nothrow: true, quiet: true })`command -v mmdebstrap`;
  if (here.exitCode !== 0) {
    await aptInstall(["mmdebstrap", "debian-archive-keyring"]);
  }
  await mkdir(directory, { recursive: true });
  const own = await mkdtemp(join(directory, "hal9000-base-"));
  const tarball = join(own, "base.tar");
  try {
    await asRoot(
      // As in Debian's own image: a build that breaks off starts again from its base.
      `mmdebstrap --quiet --variant=apt --include=ca-certificates ` +
        `--dpkgopt=force-unsafe-io ` +
        `--keyring=${keyring} --architectures=${arch} trixie '${tarball}'`,
    );
    await $({ quiet: true })`docker import ${tarball} ${localBase}`;
  } catch (error) {
    throw new Failure("failed", `Cannot build ${localBase}`, {
      cause: error,
      hint: `Make ${registryBase} available to the engine, then run it again.`,
    });
  } finally {
    await rm(own, { recursive: true, force: true });
  }
}
