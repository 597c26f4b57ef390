// Checks the inotify instances, which are limited per user of the machine.

import { lookAtContainers } from "../helper/helper.ts";
import type { Instance } from "../instance/instance.ts";
import type { Look } from "../helper/processes.ts";
import { listWorkers } from "../worker/workers.ts";
import { type Finding, ok, warn } from "./findings.ts";

export async function examineInotify(instance: Instance): Promise<Finding> {
  const workers = (await listWorkers(instance))
    .filter(({ state }) => state === "running" || state === "paused");
  if (workers.length === 0) return ok("no workers are running");
  const look = await lookAtContainers(instance, {
    netPid: null,
    containers: workers.map(({ id }) => id),
  });
  const names = new Map(workers.map(({ id, name }) => [id, name]));
  return judgeInotify(look, names);
}

/** Share of the limit that workers may use; the user's own programs need the rest. */
const maxShare = 0.5;

/** Names the worker that uses most of a user's limit. */
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
      `claudy stop ${name}, or sudo sysctl ` +
        `fs.inotify.max_user_instances=${inotifyLimit * 8}`,
    );
  }
  const most = Math.max(0, ...used.values());
  return ok(`workers hold ${most} of ${inotifyLimit} for one user`);
}
