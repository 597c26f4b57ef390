// The images of profiles: layers on the worker's image. Each is built when it is first
// needed, and again when its inputs have changed.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { dropImage, inspectImage, listImages } from "../docker/docker.ts";
import { checkout } from "../std/checkout.ts";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { label } from "../instance/labels.ts";
import type { Log } from "../std/log.ts";
import {
  baseProfile,
  checkProfile,
  devcontainerProfile,
  isUserProfile,
  type Profile,
  profileOf,
  shippedProfiles,
  userProfiles,
} from "../project/profile.ts";
import { megabytes } from "../std/units.ts";
import { workerImage } from "./recipes.ts";
import type { AskDevcontainer } from "../project/devcontainer-approval.ts";
import type { Layer } from "./profile-build.ts";
import { nameImage, takeOver } from "./shared.ts";

type Home = Pick<Instance, "home" | "settings" | "prefix">;

/** The name of a profile's image, whether it exists or not. */
export function profileImage(instance: Home, profile: Profile): string {
  return layersOf(instance, profile).at(-1)?.tag ??
    workerImage(instance.settings);
}

/** The names of a profile's image and of those below it that are not the plain worker. */
export function profileImages(instance: Home, name: string): string[] {
  return layersOf(instance, { name, packages: [] }).map(({ tag }) => tag);
}

/** Whether a name is one of profileImages(), of any profile. */
export function isProfileImage(instance: Home, name: string): boolean {
  const own = `${instance.prefix}-profile:`;
  const shipped = shippedProfiles.flatMap((profile) =>
    profileImages(instance, profile)
  );
  return shipped.includes(name) || name.startsWith(own);
}

/** The layer of all profiles but devcontainers. */
const debian = "debian";

function layersOf(
  { home, settings, prefix }: Home,
  { name, packages, devcontainer }: Profile,
): Layer[] {
  if (name === baseProfile && packages.length === 0) return [];
  const shipped = join(checkout, "docker", "profiles");
  // Layers on a custom worker image are specific to the instance.
  const own = settings.WORKER_IMAGE !== "";
  const ours = (kind: string): Layer => ({
    tag: own
      ? `${prefix}-worker:${kind}`
      : `${settings.HAL9000_IMAGE_REPO}:worker-${kind}`,
    context: shipped,
    dockerfile: `Dockerfile.${kind}`,
    args: {},
    own,
  });
  const layers = devcontainer ? [] : [ours(debian)];
  if (devcontainer) {
    layers.push({
      tag: `${prefix}-devcontainer:${digestOf([devcontainer.project])}`,
      context: shipped,
      dockerfile: "Dockerfile.devcontainer",
      args: {},
      own: true,
    });
  } else if (isUserProfile(name, home)) {
    layers.push({
      tag: `${prefix}-profile:${name}`,
      context: home.profile(name),
      dockerfile: "Dockerfile",
      args: {},
      own: true,
    });
  } else if (name !== baseProfile) layers.push(ours(name));
  if (packages.length > 0) {
    const list = [...new Set(packages)].sort().join(" ");
    const below = layers.at(-1)?.tag ?? "";
    layers.push({
      tag: `${prefix}-apt:${digestOf([below, list])}`,
      context: shipped,
      dockerfile: "Dockerfile.apt",
      args: { PACKAGES: list },
      own: true,
    });
  }
  return layers;
}

export interface ProfileChoice {
  /** From the command line; undefined for the project's profile. */
  name?: string | undefined;
  /** False to use only existing images. */
  build: boolean;
  /** Asks the user about the project's devcontainer; without it, nobody is asked. */
  askDevcontainer?: AskDevcontainer | undefined;
}

export interface ReadyImage {
  name: string;
  /** Undefined if not looked up: for the plain worker image, the spawn checks that. */
  id?: string | undefined;
}

/** The image of the project's profile, or of the chosen one. */
export async function projectImage(
  instance: Instance,
  project: string,
  desired: ProfileChoice,
  log: Log,
): Promise<ReadyImage> {
  const { host, settings } = instance;
  const profile = profileOf(project, host, desired.name, log, settings);
  return await readyImage(instance, profile, desired, log);
}

/**
 * The image of a profile, built if it is missing or outdated. If nothing may be built and
 * it is missing, returns the closest existing image and logs a warning.
 */
export async function readyImage(
  instance: Instance,
  profile: Profile,
  desired: Pick<ProfileChoice, "build" | "askDevcontainer">,
  log: Log,
): Promise<ReadyImage> {
  const { docker, settings } = instance;
  const plain = workerImage(settings);
  checkProfile(profile.name, instance.home);
  // The parent has neither the Dockerfiles nor a user who waits.
  const build = desired.build && instance.self === undefined;
  const layers = layersOf(instance, profile);
  const last = layers.at(-1);
  if (!last) return { name: plain };
  if (!build) {
    return await presentImage(instance, layers, log);
  }
  const below = await inspectImage(docker, plain);
  if (!below) {
    throw new Failure("notFound", `There is no image ${plain}`, {
      hint: "Build it: claudy up",
    });
  }
  const { devcontainer } = profile;
  const [lowest] = layers;
  if (devcontainer && lowest) {
    // Loaded lazily: most projects have none.
    const { approvedDevcontainer } = await import(
      "../project/devcontainer-approval.ts"
    );
    const ask = desired.askDevcontainer;
    lowest.review = await approvedDevcontainer(instance, devcontainer, ask);
  }
  let id = below.Id;
  let tag = plain;
  for (const layer of layers) {
    id = await ensureLayer(instance, layer, { tag, id }, log);
    tag = layer.tag;
  }
  return { name: tag, id };
}

/** The topmost existing layer, else the plain image; logs a warning about a fallback. */
async function presentImage(
  { docker, settings }: Pick<Instance, "docker" | "settings">,
  layers: Layer[],
  log: Log,
): Promise<ReadyImage> {
  const tags = layers.filter(({ dockerfile }) =>
    dockerfile !== `Dockerfile.${debian}`
  ).map(({ tag }) => tag).toReversed();
  const [wanted] = tags;
  const warn = (fallback: string) =>
    log(
      `warning: ${wanted} is not built; using ${fallback}. ` +
        "To build it, open the session on the host without --no-build",
    );
  for (const tag of tags) {
    const found = await inspectImage(docker, tag);
    if (!found) continue;
    if (tag !== wanted) warn(tag);
    return { name: tag, id: found.Id };
  }
  const plain = workerImage(settings);
  warn(plain);
  return { name: plain };
}

async function ensureLayer(
  instance: Instance,
  layer: Layer,
  below: { tag: string; id: string },
  log: Log,
): Promise<string> {
  const { docker } = instance;
  const inputs = digestOf([
    below.id,
    layer.dockerfile,
    ...Object.values(layer.args),
    ...(layer.review ? [layer.review.digest] : []),
    ...await sourceParts(layer),
  ]);
  const former = await inspectImage(docker, layer.tag);
  if (former?.Config.Labels?.[label.inputs] === inputs) return former.Id;
  if (!layer.own) {
    const same = await takeOver(docker, [layer.tag], inputs);
    if (same) return same;
  }
  const packages = layer.args["PACKAGES"];
  const contents = packages ? ` with ${packages}` : "";
  log(
    `Building ${layer.tag}${contents}. This can take a minute; later starts use the image.`,
  );
  try {
    // Loaded lazily: usually nothing has to be built.
    const from = { below: below.tag, inputs };
    const { review } = layer;
    const id = review
      ? await (await import("./devcontainer.ts"))
        .buildDevcontainer(instance, { ...layer, review }, from, log)
      : await (await import("./profile-build.ts"))
        .buildLayer(instance, layer, from, log);
    // Named last, so that every named image has passed its test.
    await nameImage(docker, id, layer.tag);
    const { Size } = await docker.getImage(id).inspect();
    const shared = (await docker.getImage(below.tag).inspect()).Size;
    // The image of a devcontainer shares no layers with the plain worker.
    const more = review
      ? ""
      : `, ${megabytes(Size - shared)} more than ${below.tag}`;
    log(`${layer.tag}: ${megabytes(Size)}${more}`);
    if (former && former.Id !== id) await dropImage(docker, former.Id);
    return id;
  } catch (error) {
    const { message, hint } = error as Failure;
    throw new Failure(
      "failed",
      `Cannot build ${layer.tag}${contents}: ${message}`,
      {
        cause: error,
        hint: `${hint ? `${hint}. ` : ""}` +
          "You can use the plain worker with --no-build.",
      },
    );
  }
}

/** The inputs of a layer, except the image below. */
async function sourceParts(
  { context, dockerfile, own }: Layer,
): Promise<string[]> {
  // Shipped Dockerfiles share a directory and use no other files.
  if (!own || dockerfile !== "Dockerfile") {
    return [readFileSync(join(context, dockerfile), "utf8")];
  }
  // Loaded lazily: shipped profiles have no context to read.
  const { contextParts } = await import("./context.ts");
  return await contextParts(context);
}

function digestOf(parts: string[]): string {
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex")
    .slice(0, 16);
}

export interface KnownProfile {
  name: string;
  image: string;
  /** Null if it is not built. */
  sizeBytes: number | null;
  /** Whether it is the user's own profile. */
  own: boolean;
  /** Whether the pool keeps warm workers for it. */
  warm: boolean;
  /** Only for the image of a devcontainer. */
  project?: string;
}

/** All profiles, built or not. */
export async function listProfiles(
  instance: Instance,
): Promise<KnownProfile[]> {
  const { docker, home, settings } = instance;
  const names = [baseProfile, ...shippedProfiles, ...userProfiles(home)];
  const profiles = [...new Set(names)].map(async (name) => {
    const image = profileImage(instance, { name, packages: [] });
    const found = await inspectImage(docker, image);
    return {
      name,
      image,
      sizeBytes: found?.Size ?? null,
      own: isUserProfile(name, home),
      warm: settings.WARM_PROFILES.includes(name),
    };
  });
  return [...await Promise.all(profiles), ...await devcontainers(instance)];
}

/** The images of devcontainers that are built. */
export async function devcontainers(
  { docker, prefix }: Pick<Instance, "docker" | "prefix">,
): Promise<(KnownProfile & { sizeBytes: number })[]> {
  const images = await listImages(docker, {
    filters: {
      reference: [`${prefix}-devcontainer`],
      label: [label.devcontainer],
    },
  });
  return images.map(({ RepoTags, Size, Labels }) => ({
    name: devcontainerProfile,
    image: RepoTags?.[0] ?? "",
    sizeBytes: Size,
    own: false,
    warm: false,
    project: Labels[label.devcontainer] ?? "",
  }));
}
