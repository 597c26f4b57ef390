// Images that several instances have under names of their own. To build one again takes
// seconds even where all of it is in the engine's cache.

import { type Docker, dropImage, inspectImage } from "../docker/docker.ts";
import { label } from "../instance/labels.ts";

/**
 * Gives the names to an image of another instance that is made of the same, and returns
 * its id; undefined where there is none.
 */
export async function takeOver(
  docker: Docker,
  names: string[],
  inputs: string,
): Promise<string | undefined> {
  const [first = ""] = names;
  const images = await docker.listImages({
    filters: { label: [`${label.inputs}=${inputs}`] },
  });
  // Somebody's own image that is built on ours has its labels too, but not its name.
  const suffix = first.slice(first.lastIndexOf(":"));
  const same = images.find(({ RepoTags }) =>
    RepoTags?.some((name) => name.endsWith(suffix))
  );
  if (!same) return undefined;
  const former = await inspectImage(docker, first);
  for (const name of names) await nameImage(docker, same.Id, name);
  if (former) await dropImage(docker, former.Id);
  return same.Id;
}

/** Gives an image a name; another image that has it loses it. */
export async function nameImage(
  docker: Docker,
  id: string,
  name: string,
): Promise<void> {
  const [repo = "", tag = ""] = name.split(/:(?=[^:/]+$)/);
  await docker.getImage(id).tag({ repo, tag });
}
