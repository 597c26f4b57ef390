// Builds outdated and missing images.

import { once } from "node:events";
import { mkdir, mkdtemp, open, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { $, type ProcessOutput } from "zx/core";
import { type Docker, dropImage, inspectImage } from "../docker/docker.ts";
import { hasBuildKit } from "../docker/engine-info.ts";
import { label, versionLabel } from "../instance/labels.ts";
import { Failure } from "../std/errors.ts";
import type { Log, RunStep } from "../std/log.ts";
import { readFileEnd } from "../std/plain-file.ts";
import { removeTree } from "../std/remove-tree.ts";
import { megabytes } from "../std/units.ts";
import { type BaseImage, baseImage, imagesBase, presentBase } from "./base.ts";
import {
  currentInputs,
  formerBases,
  type ImageSet,
  inputsOf,
  isCurrent,
  namesOf,
} from "./current.ts";
import { stageInputs, stageScripts } from "./inputs.ts";
import { contextFiles, type ImageRecipe, selectRecipes } from "./recipes.ts";

export interface BuildOptions extends ImageSet {
  noCache: boolean;
}

export interface BuiltImage {
  name: string;
  tags: string[];
  id: string;
  sizeBytes: number;
  originalBytes: number | null;
  /** False if the image was already up to date. */
  built: boolean;
}

/** Builds the outdated images for an engine of `arch`; returns all with their sizes. */
export async function buildImages(
  docker: Docker,
  arch: string,
  options: BuildOptions,
  step: RunStep,
): Promise<BuiltImage[]> {
  const release = await lock(options.places.work);
  try {
    return await buildStaged(docker, arch, options, step);
  } finally {
    release();
  }
}

/**
 * Locks a directory, so that concurrent builds do not share what is staged. A child
 * process holds the lock and exits with this process, even if that is killed. Without
 * flock(1), builds are not locked.
 */
export async function lock(directory: string): Promise<() => void> {
  await mkdir(directory, { recursive: true });
  const holder = $({ quiet: true, nothrow: true })`flock ${
    join(directory, "lock")
  } sh -c ${"echo; exec cat"}`;
  await Promise.race([once(holder.stdout, "data"), holder]);
  return () => holder.stdin.end();
}

/** Builds images at the same time, each after the one that it is built on. */
async function buildStaged(
  docker: Docker,
  arch: string,
  options: BuildOptions,
  step: RunStep,
): Promise<BuiltImage[]> {
  const { places, noCache } = options;
  const stage = () =>
    step("Image inputs", (log) => stageInputs(places, arch, log));
  const local = imagesBase(places.root);
  const directory = places.work;
  const makeBase = () =>
    baseImage(docker, local, { arch, directory, noCache }, step);
  const former = noCache || await presentBase(docker, local)
    ? []
    : await formerBases(docker, options.version);
  const [made] = await Promise.all([
    former.length > 0 ? undefined : makeBase(),
    stageScripts(places),
    // So that `docker build` also works by hand.
    places.prebuilt === undefined ? stage() : undefined,
  ]);
  const current = await currentInputs(docker, arch, options, former);
  const base = made ?? (current ? undefined : await makeBase());
  const inputs = current ?? await inputsOf(arch, options, base?.id ?? "");
  // Copies of an installed package are made only if needed, and removed.
  let staged: Promise<void> | undefined;
  const ready = () =>
    places.prebuilt === undefined ? undefined : staged ??= stage();
  const builds = new Map<string, Promise<BuiltImage>>();
  for (const recipe of selectRecipes(options.only)) {
    const build = async () => {
      await builds.get(recipe.on ?? "");
      const own = inputs.get(recipe.name) ?? "";
      return await buildOne(
        docker,
        { recipe, base, inputs: own, ready },
        options,
        step,
      );
    };
    builds.set(recipe.name, build());
  }
  // All of them, so that no build goes on after this command has failed.
  await Promise.allSettled(builds.values());
  if (staged) await removeTree(places.context);
  return await Promise.all(builds.values());
}

async function buildOne(
  docker: Docker,
  { recipe, base, inputs, ready }: {
    recipe: ImageRecipe;
    /** Undefined if nothing has to be built. */
    base: BaseImage | undefined;
    inputs: string;
    /** Completes the build context. */
    ready: () => Promise<void> | undefined;
  },
  options: BuildOptions,
  step: RunStep,
): Promise<BuiltImage> {
  const { places, repository, version, noCache } = options;
  const { name } = recipe;
  const tags = namesOf(recipe, options);
  const current = !noCache && await isCurrent(docker, tags, inputs);
  const id = `${repository}:${name}`;
  if (!current && base) {
    const args = buildArguments(recipe, repository, base.name, {
      ...imageLabels(recipe, version),
      [label.inputs]: inputs,
      [label.base]: base.id,
    });
    if (noCache) args.push("--no-cache");
    const former = await inspectImage(docker, id);
    await ready();
    const context = {
      directory: places.context,
      files: contextFiles(recipe),
    };
    await step(
      `Image ${name}`,
      async (log) => {
        await runBuild(docker, context, args, places.log(name), log);
        return await docker.getImage(id).inspect();
      },
      ({ Size }) => megabytes(Size),
    );
    if (former) await dropImage(docker, former.Id);
  }
  const image = await docker.getImage(id).inspect();
  return {
    name,
    tags,
    id: image.Id,
    sizeBytes: image.Size,
    originalBytes: recipe.originalBytes,
    built: !current,
  };
}

export interface BuildContext {
  directory: string;
  /**
   * If given, only these files of it are sent to the engine.
   * @default all that .dockerignore does not exclude
   */
  files?: string[];
}

/**
 * Runs `docker build` in a context, with its output in a log file; returns the image's
 * id. Throws a `failed` Failure if it fails, after the last lines of the log.
 */
export async function runBuild(
  docker: Docker,
  { directory, files }: BuildContext,
  args: string[],
  logFile: string,
  log: Log,
): Promise<string> {
  const builder = await builderEnv(docker);
  const own = await mkdtemp(join(tmpdir(), "hal9000-build-"));
  const idFile = join(own, "id");
  const build = [...classicArguments(builder), `--iidfile=${idFile}`, ...args];
  try {
    await runLogged(
      // zx runs it with pipefail.
      (shell) =>
        files
          ? shell`tar -cf - ${files} | docker build ${build} -`
          : shell`docker build ${build} .`,
      {
        what: "docker build",
        cwd: directory,
        env: { ...process.env, ...builder },
        logFile,
      },
      log,
    );
    // Not from the engine's list: it leaves out images on which others are built.
    return (await readFile(idFile, "utf8")).trim();
  } finally {
    await rm(own, { recursive: true, force: true });
  }
}

/**
 * Runs a command that builds an image, with its output in a log file. Throws a `failed`
 * Failure if it fails, after the last lines of the log.
 */
export async function runLogged(
  run: (shell: typeof $) => PromiseLike<ProcessOutput>,
  { what, cwd, env, logFile }: {
    /** For the message of the failure. */
    what: string;
    cwd: string;
    env: NodeJS.ProcessEnv;
    logFile: string;
  },
  log: Log,
): Promise<void> {
  await mkdir(dirname(logFile), { recursive: true });
  const output = await open(logFile, "w");
  try {
    const { exitCode } = await run($({
      cwd,
      env,
      stdio: ["ignore", output.fd, output.fd],
      nothrow: true,
      quiet: true,
    }));
    if (exitCode === 0) return;
  } finally {
    await output.close();
  }
  const end = readFileEnd(logFile, 0, maxShownBytes)?.bytes.toString("utf8");
  (end ?? "").trimEnd().split("\n").slice(-shownLines).forEach(log);
  throw new Failure("failed", `${what} failed`, {
    hint: `The whole log: ${logFile}`,
  });
}

/** How much of a failed build is shown: a project's own build can print anything. */
const shownLines = 20;
const maxShownBytes = 16 * 1024;

/**
 * Selects the classic builder unless both the client and the engine have BuildKit: a client
 * with buildx does not see that the engine has none.
 */
export async function builderEnv(
  docker: Docker,
): Promise<Record<string, string>> {
  const buildx = await $({ nothrow: true, quiet: true })`docker buildx version`;
  return buildx.exitCode === 0 && await hasBuildKit(docker)
    ? {}
    : { DOCKER_BUILDKIT: "0" };
}

/** The classic builder keeps the container of a failed step. */
export function classicArguments(builder: Record<string, string>): string[] {
  return builder["DOCKER_BUILDKIT"] === "0" ? ["--force-rm"] : [];
}

/** The arguments of `docker build` for a recipe, without the context. */
export function buildArguments(
  recipe: ImageRecipe,
  repository: string,
  base: string,
  labels: Record<string, string>,
): string[] {
  return [
    `--file=Dockerfile.${recipe.name}`,
    `--build-arg=BASE_IMAGE=${base}`,
    ...(recipe.on
      ? [`--build-arg=WORKER_IMAGE=${repository}:${recipe.on}`]
      : []),
    ...recipe.tags.map((tag) => `--tag=${repository}:${tag}`),
    ...Object.entries(labels).map(([key, value]) => `--label=${key}=${value}`),
  ];
}

/** https://specs.opencontainers.org/image-spec/annotations/ */
function imageLabels(
  recipe: ImageRecipe,
  version: string,
): Record<string, string> {
  return {
    "org.opencontainers.image.title": recipe.title,
    [versionLabel]: version,
    "org.opencontainers.image.licenses": "Apache-2.0",
    "org.opencontainers.image.source": "https://github.com/hellblazer/hal-9000",
  };
}
