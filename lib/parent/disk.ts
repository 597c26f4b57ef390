// Measures now and then how much disk space workers use, so that a status need not.

import { setTimeout as sleep } from "node:timers/promises";
import type { Instance } from "../instance/instance.ts";
import { messageOf } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import {
  diskText,
  type DiskUse,
  diskUse,
  overDisk,
} from "../worker/disk-use.ts";

/** A worker with millions of files keeps a CPU busy for `measureMs` each time. */
const everyMs = 5 * 60_000;
const measureMs = 10_000;

/** Reports the workers that use more than WORKER_DISK, until `stop` is aborted. */
export async function keepMeasured(
  instance: Instance,
  stop: AbortSignal,
  log: Log,
  changed: (over: DiskUse[]) => void,
): Promise<void> {
  let known: string[] = [];
  while (!stop.aborted) {
    try {
      const uses = await diskUse(instance, measureMs);
      const over = overDisk(uses, instance.settings.WORKER_DISK);
      for (const use of over) {
        if (known.includes(use.name)) continue;
        log(`Worker uses more than WORKER_DISK: ${diskText(use)}`);
      }
      if (over.length > 0 || known.length > 0) changed(over);
      known = over.map(({ name }) => name);
    } catch (error) {
      log(`Cannot measure the workers' disk space: ${messageOf(error)}`);
    }
    await sleep(everyMs, undefined, { signal: stop }).catch(() => {});
  }
}
