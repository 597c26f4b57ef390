// What the pool is to be: said by a command, else by the settings.

import * as v from "valibot";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { writeAtomic } from "../std/owned.ts";
import { readJson } from "../std/json.ts";
import { type Sizes, sizesSchema } from "./protocol.ts";

const desiredSchema = v.object({
  version: v.literal(1),
  enabled: v.boolean(),
  sizes: sizesSchema,
});

export interface Desired {
  enabled: boolean;
  sizes: Required<Sizes>;
}

type Home = Pick<Instance, "home" | "owner" | "settings">;

export function readDesired(instance: Home): Desired {
  const { settings } = instance;
  const said = savedDesired(instance);
  return {
    enabled: said?.enabled ?? settings.ENABLE_POOL_MANAGER,
    sizes: {
      minWarm: settings.MIN_WARM_WORKERS,
      maxWarm: settings.MAX_WARM_WORKERS,
      idleTimeout: settings.IDLE_TIMEOUT,
      checkInterval: settings.CHECK_INTERVAL,
      ...said?.sizes,
    },
  };
}

/** Keeps what is said, beside what was said before. */
export function writeDesired(
  instance: Home,
  enabled: boolean,
  sizes: Sizes = {},
): Desired {
  const said = { ...savedDesired(instance)?.sizes, ...sizes };
  const text = JSON.stringify({ version: 1, enabled, sizes: said }, null, 2);
  const desired = readDesired(instance);
  checkSizes({ ...desired.sizes, ...said });
  writeAtomic(instance.home.desiredPool, `${text}\n`, instance.owner);
  return readDesired(instance);
}

/** Throws a `usage` Failure for a minimum above the maximum. */
export function checkSizes({ minWarm, maxWarm }: Required<Sizes>): void {
  if (minWarm <= maxWarm) return;
  throw new Failure(
    "usage",
    `The minimum of ${minWarm} warm workers exceeds the maximum of ${maxWarm}`,
    { hint: "Give both: --min-warm and --max-warm." },
  );
}

function savedDesired(
  { home }: Home,
): v.InferOutput<typeof desiredSchema> | undefined {
  return readJson(home.desiredPool, desiredSchema);
}
