// The desired state of the pool: set by a command, otherwise by the settings.

import * as v from "valibot";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { writeAtomic } from "../std/owned.ts";
import { readJson } from "../std/json.ts";
import { type WorkerNetwork, workerNetworks } from "../instance/settings.ts";
import { type Sizes, sizesSchema } from "./protocol.ts";

const desiredSchema = v.object({
  version: v.literal(1),
  enabled: v.boolean(),
  sizes: sizesSchema,
  network: v.exactOptional(v.picklist(workerNetworks)),
});

export interface Desired {
  enabled: boolean;
  sizes: Required<Sizes>;
  /** Of the warm workers. */
  network: WorkerNetwork;
}

type Home = Pick<Instance, "home" | "owner" | "settings">;

export function readDesired(instance: Home): Desired {
  const { settings } = instance;
  const saved = savedDesired(instance);
  return {
    enabled: saved?.enabled ?? settings.ENABLE_POOL_MANAGER,
    sizes: {
      minWarm: settings.MIN_WARM_WORKERS,
      maxWarm: settings.MAX_WARM_WORKERS,
      idleTimeout: settings.IDLE_TIMEOUT,
      checkInterval: settings.CHECK_INTERVAL,
      ...saved?.sizes,
    },
    network: saved?.network ?? settings.WORKER_NETWORK,
  };
}

/** Saves the given sizes and network; others stay as they were saved. */
export function writeDesired(
  instance: Home,
  enabled: boolean,
  sizes: Sizes = {},
  network?: WorkerNetwork,
): Desired {
  const before = savedDesired(instance);
  const saved = {
    version: 1,
    enabled,
    sizes: { ...before?.sizes, ...sizes },
    network: network ?? before?.network,
  };
  const text = JSON.stringify(saved, null, 2);
  checkSizes({ ...readDesired(instance).sizes, ...saved.sizes });
  writeAtomic(instance.home.desiredPool, `${text}\n`, instance.owner);
  return readDesired(instance);
}

/** Throws a `usage` Failure if the minimum exceeds the maximum. */
export function checkSizes({ minWarm, maxWarm }: Required<Sizes>): void {
  if (minWarm <= maxWarm) return;
  throw new Failure(
    "usage",
    `The minimum of ${minWarm} warm workers exceeds the maximum of ${maxWarm}`,
    { hint: "Pass both --min-warm and --max-warm." },
  );
}

function savedDesired(
  { home }: Home,
): v.InferOutput<typeof desiredSchema> | undefined {
  return readJson(home.desiredPool, desiredSchema);
}
