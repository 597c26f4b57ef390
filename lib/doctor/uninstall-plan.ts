// Decides what an uninstall removes from the engine: what the instance has created, and what
// all instances share if no other one is left.

import type { Docker } from "../docker/docker.ts";
import { localBases } from "../image/base.ts";
import { formerOf, nextOf, ownKinds } from "../image/tags.ts";
import type { Instance } from "../instance/instance.ts";
import { label } from "../instance/labels.ts";
import { isSameHome } from "../instance/ownership.ts";

/** Everything in the engine, of all instances. */
export interface EngineContents {
  containers: Pick<
    Docker.ContainerInfo,
    "Id" | "Names" | "Image" | "ImageID" | "State" | "Labels"
  >[];
  volumes: Pick<Docker.VolumeInspectInfo, "Name" | "Labels">[];
  images: Pick<Docker.ImageInfo, "Id" | "RepoTags" | "Labels">[];
}

export interface UninstallPlan {
  /** Names of the instance's containers. */
  containers: string[];
  /** Image names. */
  images: string[];
  /** Ids of images without a name. */
  untagged: string[];
  /** Names of volumes, which are only removed with the data. */
  volumes: string[];
  /** Prefixes and image repositories that keep what instances share in use. */
  others: string[];
}

export function planUninstall(
  instance: Pick<
    Instance,
    "prefix" | "names" | "settings" | "hostHome" | "self"
  >,
  { containers, volumes, images }: EngineContents,
): UninstallPlan {
  const { prefix, names, settings } = instance;
  const repository = settings.HAL9000_IMAGE_REPO;
  const repositories = [
    repository,
    // Left by an upgrade that was interrupted.
    ...[nextOf(repository), formerOf(repository)],
    ...ownKinds.map((kind) => `${prefix}-${kind}`),
  ];
  const isOwn = (labels: Record<string, string> | null, name: string) => {
    const home = labels?.[label.home];
    // Any image or volume can have the prefix as a label.
    if (home !== undefined && !isSameHome(instance, home)) return false;
    return labels?.[label.instance] === prefix ||
      // A parent that was started by hand has no label of its instance.
      (name === names.parent && labels?.[label.role] === "parent" &&
        labels[label.instance] === undefined);
  };
  const others = new Set(
    [...containers, ...volumes]
      .map(({ Labels }) => Labels?.[label.instance])
      .filter((other) => other !== undefined && other !== prefix) as string[],
  );
  const ours = images.filter((image) =>
    image.Labels?.[label.inputs] ||
    // A devcontainer's image gets its label at the end of the build.
    namesOf(image).some((name) =>
      repositoryOf(name) === `${prefix}-devcontainer`
    )
  );
  const tags = ours.flatMap(namesOf);
  const foreign = containers.filter(({ Labels, Names }) =>
    !isOwn(Labels, nameOf(Names))
  );
  // Another instance may use the same repository, and start other workers from it later. One
  // that only has taken over an image has its own names for it.
  const used = new Set(
    foreign.filter(({ Labels }) => Labels[label.instance] !== undefined)
      .map(({ Image }) => repositoryOf(Image)),
  );
  for (const tag of tags) {
    if (!repositories.includes(repositoryOf(tag))) {
      others.add(repositoryOf(tag));
    }
  }
  const shared = others.size > 0;
  return {
    containers: containers
      .filter(({ Labels, Names }) => isOwn(Labels, nameOf(Names)))
      .map(({ Names }) => nameOf(Names)).sort(),
    images: [
      ...tags.filter((tag) =>
        repositories.includes(repositoryOf(tag)) &&
        !used.has(repositoryOf(tag)) &&
        !foreign.some(({ Image }) => Image === tag)
      ),
      ...(shared ? [] : images.flatMap(namesOf))
        .filter((name) => localBases.includes(name)),
    ].sort(),
    untagged: shared
      ? []
      : images.filter((image) =>
        namesOf(image).length === 0 &&
        (image.Labels?.[label.inputs] || image.Labels?.[label.stage]) &&
        !foreign.some(({ ImageID }) => ImageID === image.Id)
      ).map(({ Id }) => Id),
    volumes: volumes.filter(({ Labels, Name }) => isOwn(Labels, Name))
      .map(({ Name }) => Name).sort(),
    others: [...others].sort(),
  };
}

const nameOf = (names: string[]) => (names[0] ?? "").slice(1);

function namesOf({ RepoTags }: Pick<Docker.ImageInfo, "RepoTags">): string[] {
  return (RepoTags ?? []).filter((name) => name !== "<none>:<none>");
}

/** The part of an image's name before its tag. */
function repositoryOf(name: string): string {
  return name.slice(0, name.lastIndexOf(":"));
}
