// Makes sure of the workers' image before the first worker asks for it.

import { type Docker, inspectImage } from "../docker/docker.ts";
import { messageOf } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { workerImage } from "./recipes.ts";

/**
 * Pulls the worker image where it is missing: not at all under SKIP_IMAGE_PULL,
 * without waiting for it under LAZY_IMAGE_PULL. A failed pull is told and no
 * more: a spawn says what is missing.
 */
export async function pullWorkerImage(
  { docker, settings, prefix }: Pick<
    Instance,
    "docker" | "settings" | "prefix"
  >,
  log: Log,
): Promise<void> {
  if (settings.SKIP_IMAGE_PULL) return;
  const image = workerImage(settings);
  // A name that is the instance's own is in no registry.
  if (image === `${prefix}:worker`) return;
  if (await inspectImage(docker, image)) return;
  log(`Pulling ${image}`);
  const pulled = pull(docker, image).then(
    () => log(`Pulled ${image}`),
    (error) => log(`Cannot pull ${image}: ${messageOf(error)}`),
  );
  if (!settings.LAZY_IMAGE_PULL) await pulled;
}

async function pull(docker: Docker, image: string): Promise<void> {
  const progress = await docker.pull(image);
  await new Promise<void>((resolve, reject) =>
    docker.modem.followProgress(
      progress,
      (error) => error ? reject(error) : resolve(),
    )
  );
}
