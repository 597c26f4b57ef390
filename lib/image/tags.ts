// The image names of an instance, as a whole: an upgrade builds images under other names
// first, and keeps the former ones until it is done.

import { type Docker, dropImage, inspectImage } from "../docker/docker.ts";
import { statusOf } from "../docker/docker-errors.ts";
import { recipes } from "./recipes.ts";
import { nameImage } from "./shared.ts";

const tags = recipes.flatMap((recipe) => recipe.tags);

/** Where an upgrade builds its images, and where it keeps the former ones. */
export const nextOf = (repository: string) => `${repository}-next`;
export const formerOf = (repository: string) => `${repository}-former`;

/**
 * Gives the images of a repository the same tags in another one. Returns whether any of
 * those had another image.
 */
export async function copyTags(
  docker: Docker,
  from: string,
  to: string,
): Promise<boolean> {
  let changed = false;
  for (const tag of tags) {
    const image = await inspectImage(docker, `${from}:${tag}`);
    if (!image) continue;
    const replaced = await inspectImage(docker, `${to}:${tag}`);
    await nameImage(docker, image.Id, `${to}:${tag}`);
    if (replaced) await dropImage(docker, replaced.Id);
    changed ||= replaced?.Id !== image.Id;
  }
  return changed;
}

/** Removes the tags of a repository, and images that have no other and are not in use. */
export async function removeTags(
  docker: Docker,
  repository: string,
): Promise<void> {
  for (const tag of tags) {
    try {
      await docker.getImage(`${repository}:${tag}`).remove({ force: true });
    } catch (error) {
      if (![404, 409].includes(statusOf(error) ?? 0)) throw error;
    }
  }
}

/** What follows an instance's prefix in the repositories of images that only it uses. */
export const ownKinds = ["profile", "apt", "worker", "devcontainer"] as const;
