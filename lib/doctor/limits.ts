// Checks which running workers have reached their limits.

import type { Instance } from "../instance/instance.ts";
import { limitEvents, limitText, pidsHint } from "../worker/limit-events.ts";
import { listWorkers } from "../worker/workers.ts";
import { type Finding, ok, warn } from "./findings.ts";

export async function examineLimits(instance: Instance): Promise<Finding> {
  const workers = (await listWorkers(instance))
    .filter(({ state }) => state === "running");
  const events = await Promise.all(
    workers.map(({ id }) => limitEvents(instance, id)),
  );
  const reached = workers.flatMap(({ name }, index) => {
    const of = events[index];
    return of && limitText(of) !== "" ? [{ name, of }] : [];
  });
  const [first] = reached;
  if (first) {
    return warn(
      reached.map(({ name, of }) => `"${name}": ${limitText(of)}`).join("; "),
      first.of.pidsRefused > 0
        ? pidsHint(first.name, first.of)
        : "set a higher WORKER_MEMORY in config/hal9000.conf, then stop and " +
          `reopen: coordinator stop ${first.name}`,
    );
  }
  if (workers.length > 0 && events.every((one) => one === null)) {
    return ok("not visible from here");
  }
  return ok("no running worker has reached one");
}
