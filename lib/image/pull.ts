// Pulls the worker image before the first worker needs it.

import { type Docker, inspectImage } from "../docker/docker.ts";
import { messageOf } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { workerImage } from "./recipes.ts";

/**
 * Pulls the worker image if it is missing. Does nothing with SKIP_IMAGE_PULL, and does not
 * wait with LAZY_IMAGE_PULL. A failed pull is only logged: a spawn reports the missing
 * image.
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
  // The instance's own image is not in a registry.
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
