// Saves an instance's images to a file, and loads them from one, for machines on which
// they cannot be built.

import { Buffer } from "node:buffer";
import { createReadStream, createWriteStream, rmSync, statSync } from "node:fs";
import { open, rename } from "node:fs/promises";
import { randomBytes } from "node:crypto";
import { dirname, join } from "node:path";
import process from "node:process";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip, createGzip } from "node:zlib";
import { type Docker, dropImage, inspectImage } from "../docker/docker.ts";
import { engineFailure } from "../docker/docker-errors.ts";
import type { Instance } from "../instance/instance.ts";
import { versionLabel } from "../instance/labels.ts";
import { Failure } from "../std/errors.ts";
import { BadImageFile, type FileImage, readImageFile } from "./image-file.ts";
import { isProfileImage, profileImages } from "./profiles.ts";
import { recipes } from "./recipes.ts";

type Transfer = Pick<Instance, "docker" | "home" | "settings" | "prefix">;

/** The names of the images that an instance cannot do without. */
export const ownNames = ({ settings }: Transfer) =>
  recipes.flatMap(({ tags }) =>
    tags.map((tag) => `${settings.HAL9000_IMAGE_REPO}:${tag}`)
  );

/**
 * Saves the images of the instance and of profiles, compressed if the file's name ends in
 * ".gz". Replaces the file when it is complete. Returns the names of the images.
 */
export async function saveImages(
  instance: Transfer,
  file: string,
  profiles: readonly string[],
): Promise<string[]> {
  const { docker } = instance;
  if (statSync(file, { throwIfNoEntry: false })?.isDirectory()) {
    throw new Failure("usage", `Cannot save images: "${file}" is a directory`);
  }
  for (const name of ownNames(instance)) {
    await requireImage(docker, name, "claudy up");
  }
  const layers = profiles.flatMap((profile) => {
    const names = profileImages(instance, profile);
    return names.map((name) => ({ name, profile }));
  });
  for (const { name, profile } of layers) {
    await requireImage(docker, name, `claudy profile build ${profile}`);
  }
  const names = [
    ...new Set([...ownNames(instance), ...layers.map(({ name }) => name)]),
  ];
  const part = join(dirname(file), `.${randomBytes(8).toString("hex")}.part`);
  const drop = () => rmSync(part, { force: true });
  process.once("exit", drop); // after an interrupt
  try {
    await pipeline([
      // The types of dockerode lack it.
      await (docker as Docker & Exporter).getImages({ names }),
      ...(file.endsWith(".gz") ? [createGzip({ level: 1 })] : []),
      createWriteStream(part, { flags: "wx", mode: 0o600 }),
    ]);
    await sync(part);
    // An engine that fails meanwhile ends the answer as if it were complete.
    await readImageFile(await contentsOf(part));
    await rename(part, file);
  } catch (error) {
    drop();
    throw error instanceof BadImageFile
      ? new Failure("failed", `Cannot save images: ${error.message}`, {
        cause: error,
        hint: "The engine's answer is incomplete; see its log.",
      })
      : engineFailure(error, "Cannot save images");
  } finally {
    process.off("exit", drop);
  }
  return names;
}

interface Exporter {
  getImages(options: { names: string[] }): Promise<Readable>;
}

async function sync(file: string): Promise<void> {
  const handle = await open(file);
  await handle.sync();
  await handle.close();
}

async function requireImage(
  docker: Docker,
  name: string,
  build: string,
): Promise<void> {
  if (await inspectImage(docker, name)) return;
  throw new Failure("notFound", `There is no image ${name}`, {
    hint: `Build it: ${build}`,
  });
}

/**
 * Loads the images of a file that saveImages() has written; returns their names. Throws a
 * Failure before anything is loaded if the file is damaged, or not of this instance and
 * version.
 */
export async function loadImages(
  instance: Transfer,
  file: string,
  { version, arch }: { version: string; arch: string },
): Promise<string[]> {
  const { docker } = instance;
  const images = await readImageFile(await contentsOf(file)).catch((error) => {
    if (!(error instanceof BadImageFile)) throw error;
    throw new Failure("failed", `Cannot load ${file}: ${error.message}`, {
      cause: error,
      hint: "Copy it again, or save it again: claudy images save FILE",
    });
  });
  for (const image of images) refuseOther(instance, image, { version, arch });
  const names = images.flatMap(({ tags }) => tags);
  const former = await Promise.all(
    names.map((name) => inspectImage(docker, name)),
  );
  try {
    const stream = await contentsOf(file) as unknown as string;
    const progress = await docker.loadImage(stream, { quiet: true });
    await new Promise<void>((resolve, reject) =>
      docker.modem.followProgress(
        progress as Readable,
        (error) => error ? reject(error) : resolve(),
      )
    );
  } catch (error) {
    throw engineFailure(error, `Cannot load ${file}`);
  }
  for (const image of former) if (image) await dropImage(docker, image.Id);
  return names;
}

/** Throws a Failure for an image that is not of this instance and version. */
function refuseOther(
  instance: Transfer,
  { tags, labels, architecture }: FileImage,
  { version, arch }: { version: string; arch: string },
): void {
  const own = ownNames(instance);
  const other = tags.find((name) =>
    !own.includes(name) && !isProfileImage(instance, name)
  );
  if (other !== undefined) {
    throw new Failure(
      "unsafe",
      `The file has the image "${other}", which is not one of this instance`,
      {
        hint: "Images are saved and loaded with the same HAL9000_IMAGE_REPO " +
          "and HAL9000_PREFIX.",
      },
    );
  }
  const [name] = tags;
  const made = labels[versionLabel];
  if (made !== version) {
    throw new Failure(
      "failed",
      `${name} was made by version ${
        made ?? "unknown"
      }, and this is ${version}`,
      { hint: "Save the images with this version." },
    );
  }
  if (architecture !== arch) {
    throw new Failure(
      "failed",
      `${name} is for ${architecture}, and the engine's machine is ${arch}`,
      { hint: "Save the images on a machine of that kind." },
    );
  }
}

const gzipMagic = [0x1f, 0x8b];

/** The contents of a plain or compressed file. */
async function contentsOf(file: string): Promise<Readable> {
  const handle = await open(file);
  const isPlain = (await handle.stat()).isFile();
  const { buffer, bytesRead } = isPlain
    ? await handle.read(Buffer.alloc(2), 0, 2, 0)
    : { buffer: Buffer.alloc(0), bytesRead: 0 };
  await handle.close();
  if (!isPlain) {
    throw new Failure("usage", `"${file}" is not a plain file`);
  }
  const isCompressed = bytesRead === 2 &&
    gzipMagic.every((byte, at) => buffer[at] === byte);
  const bytes = createReadStream(file);
  if (!isCompressed) return bytes;
  const unzipped = createGunzip();
  bytes.on("error", (error) => unzipped.destroy(error));
  return bytes.pipe(unzipped);
}
