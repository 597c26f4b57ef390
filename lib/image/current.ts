// Which images are up to date. Those that were loaded from a file are, although the base
// image that they were built from is missing.

import { type Docker, inspectImage, listImages } from "../docker/docker.ts";
import { label, versionLabel } from "../instance/labels.ts";
import { inputsDigest } from "./inputs.ts";
import type { BuildPlaces } from "./places.ts";
import { type ImageRecipe, selectRecipes } from "./recipes.ts";
import { takeOver } from "./shared.ts";

/** Images that belong together, of one version of the program. */
export interface ImageSet {
  places: BuildPlaces;
  repository: string;
  version: string;
  /** One image and those below it. @default all */
  only: string | undefined;
}

/** Digests of the inputs of images, by their names. */
type Inputs = ReadonlyMap<string, string>;

/** The inputs of each image that is to be built, from a base image. */
export async function inputsOf(
  arch: string,
  { places, only, version }: ImageSet,
  base: string,
): Promise<Inputs> {
  const inputs = new Map<string, string>();
  for (const recipe of selectRecipes(only)) {
    const below = [base, version, inputs.get(recipe.on ?? "") ?? ""];
    const digest = await inputsDigest(places, recipe, arch, below);
    inputs.set(recipe.name, digest);
  }
  return inputs;
}

/** Ids of the base images that images of this version are built from. */
export async function formerBases(
  docker: Docker,
  version: string,
): Promise<string[]> {
  const images = await listImages(docker, {
    filters: { label: [label.base, `${versionLabel}=${version}`] },
  });
  const bases = images.flatMap(({ Labels }) => Labels?.[label.base] ?? []);
  return [...new Set(bases)];
}

/** The inputs of images that are all up to date with one of these base images. */
export async function currentInputs(
  docker: Docker,
  arch: string,
  options: ImageSet,
  bases: string[],
): Promise<Inputs | undefined> {
  for (const base of bases) {
    const inputs = await inputsOf(arch, options, base);
    const current = await Promise.all(
      selectRecipes(options.only).map((recipe) =>
        isCurrent(
          docker,
          namesOf(recipe, options),
          inputs.get(recipe.name) ?? "",
        )
      ),
    );
    if (current.every(Boolean)) return inputs;
  }
  return undefined;
}

export function namesOf(
  { tags }: ImageRecipe,
  { repository }: Pick<ImageSet, "repository">,
): string[] {
  return tags.map((tag) => `${repository}:${tag}`);
}

/** Whether images with these inputs have the names, or got them from another instance. */
export async function isCurrent(
  docker: Docker,
  names: string[],
  inputs: string,
): Promise<boolean> {
  const images = await Promise.all(
    names.map((name) => inspectImage(docker, name)),
  );
  const areCurrent = images.every((image) =>
    image?.Config.Labels?.[label.inputs] === inputs
  );
  return areCurrent || await takeOver(docker, names, inputs) !== undefined;
}
