// Inotify instances are counted for each user of the machine, workers included.

import { lookAtContainers } from "../helper/helper.ts";
import type { Instance } from "../instance/instance.ts";
import type { Look } from "../helper/processes.ts";
import { listWorkers } from "../worker/workers.ts";
import { type Finding, ok, warn } from "./findings.ts";

export async function examineInotify(instance: Instance): Promise<Finding> {
  const workers = (await listWorkers(instance))
    .filter(({ state }) => state === "running" || state === "paused");
  if (workers.length === 0) return ok("no worker runs");
  const look = await lookAtContainers(instance, {
    netPid: null,
    containers: workers.map(({ id }) => id),
  });
  const names = new Map(workers.map(({ id, name }) => [id, name]));
  return judgeInotify(look, names);
}

/** Of the limit; a person's own programs need some. */
const maxShare = 0.5;

/** Names the worker that holds most of what one user may have. */
export function judgeInotify(
  { containers, inotifyLimit }: Omit<Look, "listening">,
  names: Map<string, string>,
): Finding {
  const used = new Map<number, number>();
  for (const { uid, inotify } of containers) {
    if (uid !== null) used.set(uid, (used.get(uid) ?? 0) + inotify);
  }
  for (const [uid, count] of used) {
    if (inotifyLimit === 0 || count < inotifyLimit * maxShare) continue;
    const [worst] = containers.filter((held) => held.uid === uid)
      .toSorted((a, b) => b.inotify - a.inotify);
    const name = names.get(worst?.id ?? "") ?? "a worker";
    return warn(
      `workers hold ${count} of the ${inotifyLimit} inotify instances of uid ` +
        `${uid}, ${worst?.inotify} of them "${name}"`,
      `coordinator stop ${name}, or sudo sysctl ` +
        `fs.inotify.max_user_instances=${inotifyLimit * 8}`,
    );
  }
  const most = Math.max(0, ...used.values());
  return ok(`workers hold ${most} of ${inotifyLimit} for one user`);
}
