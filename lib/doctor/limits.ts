// Checks which running workers have reached their limits.

import { engineInfo } from "../docker/engine-info.ts";
import type { Instance } from "../instance/instance.ts";
import {
  type LimitEvents,
  limitEvents,
  limitText,
  pidsHint,
} from "../worker/limit-events.ts";
import { diskText, diskUse, overDisk } from "../worker/disk-use.ts";
import { binarySize } from "../std/units.ts";
import { listWorkers } from "../worker/workers.ts";
import { type Finding, ok, warn } from "./findings.ts";

export async function examineLimits(instance: Instance): Promise<Finding> {
  const { measures } = await engineInfo(instance.docker);
  if (!measures.pids && !measures.memory) return ok("the engine has none");
  const workers = (await listWorkers(instance))
    .filter(({ state }) => state === "running");
  return judgeLimits(
    await Promise.all(workers.map(async ({ id, name }) => ({
      name,
      events: await limitEvents(instance, id),
    }))),
  );
}

/** How long a user may have to wait for it. */
const diskMs = 10_000;

/** Nothing is stopped or removed because of its size. */
export async function examineDiskUse(instance: Instance): Promise<Finding> {
  const limit = instance.settings.WORKER_DISK;
  const uses = await diskUse(instance, diskMs);
  const over = overDisk(uses, limit);
  const [first] = over;
  if (!first) return ok(`no worker uses more than ${binarySize(limit)}`);
  return warn(
    `${over.map(diskText).join("; ")} (WORKER_DISK: ${binarySize(limit)})`,
    `stop it, which removes its container and keeps the home: claudy stop ${first.name}`,
  );
}

/** Names the workers that have reached a limit; the hint is for the first. */
export function judgeLimits(
  workers: { name: string; events: LimitEvents | null }[],
): Finding {
  if (workers.length > 0 && workers.every(({ events }) => events === null)) {
    return ok("not visible from here");
  }
  const reached = workers.filter(({ events }) => limitText(events) !== "");
  const [first] = reached;
  if (!first?.events) return ok("no running worker has reached one");
  return warn(
    reached.map(({ name, events }) => `"${name}": ${limitText(events)}`)
      .join("; "),
    first.events.pidsRefused > 0
      ? pidsHint(first.name, first.events)
      : "set a higher WORKER_MEMORY in config/hal9000.conf, then stop it and " +
        `open it again: claudy stop ${first.name}`,
  );
}
