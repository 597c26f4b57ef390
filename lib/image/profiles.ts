// The images of profiles: layers on the worker's image, each built when it is first
// asked for, and again when what it is made of has changed.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { dropImage, inspectImage } from "../docker/docker.ts";
import { checkout } from "../std/checkout.ts";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { label } from "../instance/labels.ts";
import type { Log } from "../std/log.ts";
import {
  baseProfile,
  checkProfile,
  isUserProfile,
  type Profile,
  profileOf,
  shippedProfiles,
  userProfiles,
} from "../project/profile.ts";
import { megabytes } from "../std/units.ts";
import { workerImage } from "./recipes.ts";
import type { Layer } from "./profile-build.ts";
import { nameImage, takeOver } from "./shared.ts";

type Home = Pick<Instance, "home" | "settings" | "prefix">;

/** How the image of a profile is called, whether it is there or not. */
export function profileImage(instance: Home, profile: Profile): string {
  return layersOf(instance, profile).at(-1)?.tag ??
    workerImage(instance.settings);
}

function layersOf(
  { home, settings, prefix }: Home,
  { name, packages }: Profile,
): Layer[] {
  if (name === baseProfile && packages.length === 0) return [];
  const shipped = join(checkout, "docker", "profiles");
  // On a worker of the instance's own they are its own.
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
  const layers = [ours("debian")];
  if (isUserProfile(name, home)) {
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
  /** As the command line has it; undefined for the project's own. */
  name?: string | undefined;
  /** False for what is there, and nothing else. */
  build: boolean;
}

export interface ReadyImage {
  name: string;
  /** Undefined where nobody looked: a plain worker's image is the spawn's to miss. */
  id?: string | undefined;
}

/** The image of what a project wants, or of the profile that was chosen for it. */
export async function projectImage(
  instance: Instance,
  project: string,
  desired: ProfileChoice,
  log: Log,
): Promise<ReadyImage> {
  const profile = profileOf(project, instance.host, desired.name, log);
  return await readyImage(instance, profile, desired, log);
}

/**
 * The image of a profile, built where it is missing or no longer what it would be
 * made of. Where nothing may be built, one that is missing is replaced by the plain
 * worker's, and that is told.
 */
export async function readyImage(
  instance: Instance,
  profile: Profile,
  desired: Pick<ProfileChoice, "build">,
  log: Log,
): Promise<ReadyImage> {
  const { docker, settings } = instance;
  const plain = workerImage(settings);
  checkProfile(profile.name, instance.home);
  // The parent has the engine, but neither our Dockerfiles nor a person to wait.
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
      hint: "Build it: make images",
    });
  }
  let id = below.Id;
  let tag = plain;
  for (const layer of layers) {
    id = await ensureLayer(instance, layer, { tag, id }, log);
    tag = layer.tag;
  }
  return { name: tag, id };
}

/** The nearest to what is wanted that is there; that it is another is told. */
async function presentImage(
  { docker, settings }: Instance,
  layers: Layer[],
  log: Log,
): Promise<ReadyImage> {
  const tags = layers.slice(1).map(({ tag }) => tag).toReversed();
  const [wanted] = tags;
  const tell = (taken: string) =>
    log(
      `warning: ${wanted} is not built; taking ${taken}. ` +
        "It is built where the session is opened on the host, without --no-build",
    );
  for (const tag of tags) {
    const found = await inspectImage(docker, tag);
    if (!found) continue;
    if (tag !== wanted) tell(tag);
    return { name: tag, id: found.Id };
  }
  const plain = workerImage(settings);
  tell(plain);
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
    ...await sourceParts(layer),
  ]);
  const former = await inspectImage(docker, layer.tag);
  if (former?.Config.Labels?.[label.inputs] === inputs) return former.Id;
  if (!layer.own) {
    const same = await takeOver(docker, [layer.tag], inputs);
    if (same) return same;
  }
  const packages = layer.args["PACKAGES"];
  log(`Building ${layer.tag}${packages ? `, with ${packages}` : ""}`);
  try {
    // Loaded only here: a session that has its image builds nothing.
    const { buildLayer } = await import("./profile-build.ts");
    const id = await buildLayer(instance, layer, below.tag, inputs, log);
    // The name comes last: what has it has passed its test.
    await nameImage(docker, id, layer.tag);
    const { Size } = await docker.getImage(id).inspect();
    const shared = (await docker.getImage(below.tag).inspect()).Size;
    log(
      `${layer.tag}: ${megabytes(Size)}, ${megabytes(Size - shared)} of it ` +
        `above ${below.tag}`,
    );
    if (former && former.Id !== id) await dropImage(docker, former.Id);
    return id;
  } catch (error) {
    const what = packages ? ` with ${packages}` : "";
    throw new Failure("failed", `Cannot build ${layer.tag}${what}`, {
      cause: error,
      hint: error instanceof Failure
        ? error.message
        : "See its output above; --no-build takes the plain worker.",
    });
  }
}

/** What a layer is made of, besides what it is built on. */
async function sourceParts(
  { context, dockerfile, own }: Layer,
): Promise<string[]> {
  // The shipped ones lie side by side, and are made of nothing else.
  if (!own || dockerfile !== "Dockerfile") {
    return [readFileSync(join(context, dockerfile), "utf8")];
  }
  // Loaded only here: shipped profiles have no context to read.
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
  /** Null where it is not built. */
  sizeBytes: number | null;
  /** Whether it is a person's own. */
  own: boolean;
  /** Whether the pool keeps workers of it warm. */
  warm: boolean;
}

/** All that there are, built or not. */
export async function listProfiles(
  instance: Instance,
): Promise<KnownProfile[]> {
  const { docker, home, settings } = instance;
  const names = [baseProfile, ...shippedProfiles, ...userProfiles(home)];
  return await Promise.all([...new Set(names)].map(async (name) => {
    const image = profileImage(instance, { name, packages: [] });
    const found = await inspectImage(docker, image);
    return {
      name,
      image,
      sizeBytes: found?.Size ?? null,
      own: isUserProfile(name, home),
      warm: settings.WARM_PROFILES.includes(name),
    };
  }));
}
