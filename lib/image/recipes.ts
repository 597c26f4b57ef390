// The images, their names and their inputs.

import { defaultRepository, type Settings } from "../instance/settings.ts";
import { Failure } from "../std/errors.ts";

export type ImageName = "worker-ultramin" | "worker-minimal" | "parent";

export interface ImageRecipe {
  name: ImageName;
  /** Tags within the repository; the first is the name. */
  tags: readonly string[];
  title: string;
  /** Size of the original system's image; null if it had none. */
  originalBytes: number | null;
  /** The image that this one is built on. */
  on?: ImageName;
  /** Its files in docker/, except the Dockerfile. */
  files: readonly string[];
  /** Its staged inputs in docker/build. */
  staged: readonly string[];
  /** Its packages from the lockfile, for npm's name of a CPU. */
  packages: (cpu: string) => string[];
  /** Whether it contains the bundled scripts. */
  scripts: boolean;
}

const none = () => [];

/** In build order. */
export const recipes: readonly ImageRecipe[] = [
  {
    name: "worker-ultramin",
    tags: ["worker-ultramin"],
    title: "HAL-9000 worker without git",
    originalBytes: 469e6,
    files: [
      "rootfs.sh",
      "managed-settings.json",
      "session-tmux.conf",
      "claude-session.sh",
      "worker-entrypoint.sh",
      "note-activity.sh",
    ],
    staged: ["claude"],
    packages: (cpu) => [`@anthropic-ai/claude-code-linux-${cpu}`],
    scripts: false,
  },
  {
    name: "worker-minimal",
    tags: ["worker-minimal", "worker", "worker-standard"],
    title: "HAL-9000 worker",
    originalBytes: 588e6,
    on: "worker-ultramin",
    files: ["rootfs.sh", "gitconfig", "ssh-egress.conf", "egress-connect.sh"],
    staged: [],
    packages: none,
    scripts: false,
  },
  {
    name: "parent",
    tags: ["parent", "base"],
    title: "HAL-9000 parent",
    originalBytes: 264e6,
    files: [
      "rootfs.sh",
      "run-script.sh",
      "parent-entrypoint.sh",
      "tmux-dashboard.conf",
    ],
    staged: ["deno", "chromadb", "scripts"],
    packages: (cpu) => [
      `@deno/linux-${cpu}-glibc`,
      "chromadb",
      `chromadb-js-bindings-linux-${cpu}-gnu`,
    ],
    scripts: true,
  },
];

/** The default image of workers. */
export function workerImage(
  settings: Pick<Settings, "WORKER_IMAGE" | "HAL9000_IMAGE_REPO">,
): string {
  return settings.WORKER_IMAGE || `${settings.HAL9000_IMAGE_REPO}:worker`;
}

/** The same if the settings choose it; undefined for that of the parent's repository. */
export function chosenImage(
  settings: Pick<
    Settings,
    "WORKER_IMAGE" | "HAL9000_IMAGE_REPO" | "HAL9000_PREFIX"
  >,
): string | undefined {
  const repository = defaultRepository(settings.HAL9000_PREFIX);
  return settings.WORKER_IMAGE || settings.HAL9000_IMAGE_REPO !== repository
    ? workerImage(settings)
    : undefined;
}

/** What a recipe's build sends to the engine, below docker/. */
export function contextFiles({ name, files, staged }: ImageRecipe): string[] {
  return [
    `Dockerfile.${name}`,
    ...files,
    ...staged.map((input) => `build/${input}`),
  ];
}

/** All recipes, or the recipe with the tag `only`, preceded by its base. */
export function selectRecipes(only: string | undefined): ImageRecipe[] {
  if (only === undefined) return [...recipes];
  const recipe = recipes.find(({ tags }) => tags.includes(only));
  if (!recipe) {
    throw new Failure("usage", `There is no image "${only}"`, {
      hint: `Images: ${recipes.flatMap(({ tags }) => tags).join(", ")}.`,
    });
  }
  return [...(recipe.on ? selectRecipes(recipe.on) : []), recipe];
}
