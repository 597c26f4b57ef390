// Shares identical images between instances, each of which has its own names. A rebuild
// takes seconds even if everything is in the engine's cache.

import {
  type Docker,
  dropImage,
  inspectImage,
  listImages,
} from "../docker/docker.ts";
import { label } from "../instance/labels.ts";
import { definitions } from "../instance/settings.ts";

/**
 * Tags another instance's image that has the same inputs with the names, and returns its
 * id; undefined if there is none.
 */
export async function takeOver(
  docker: Docker,
  names: string[],
  inputs: string,
): Promise<string | undefined> {
  const [first = ""] = names;
  const images = await listImages(docker, {
    filters: { label: [`${label.inputs}=${inputs}`] },
  });
  // A user's image that is built on ours inherits its labels, but not its name.
  const suffix = first.slice(first.lastIndexOf(":"));
  const same = images.find(({ RepoTags }) =>
    RepoTags?.some((name) => name.endsWith(suffix) && isBuiltHere(name))
  );
  if (!same) return undefined;
  const former = await inspectImage(docker, first);
  for (const name of names) await nameImage(docker, same.Id, name);
  if (former) await dropImage(docker, former.Id);
  return same.Id;
}

/**
 * Whether an image has this name because it was built here, and not pulled: a registry's
 * image has any labels that its publisher chose. Names without a registry or a user are
 * Docker's own; Podman's begin with localhost/.
 */
export function isBuiltHere(name: string): boolean {
  const repository = name.slice(0, name.lastIndexOf(":"));
  return repository === definitions.HAL9000_IMAGE_REPO.fallback ||
    !repository.replace(/^localhost\//, "").includes("/");
}

/** Tags an image; another image with this tag loses it. */
export async function nameImage(
  docker: Docker,
  id: string,
  name: string,
): Promise<void> {
  const [repo = "", tag = ""] = name.split(/:(?=[^:/]+$)/);
  await docker.getImage(id).tag({ repo, tag });
}
