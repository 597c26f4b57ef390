// Decides how many warm workers to create, and which to remove. A pure function of
// the current and the desired state.

export interface WarmView {
  id: string;
  /** Time since it was created. */
  idleMs: number;
  /** Whether a new one would have another image, other limits or another network. */
  stale: boolean;
}

export interface PoolView {
  warm: WarmView[];
  /** Number of workers being created. */
  creating: number;
  /** Number of workers of other images being created. */
  creatingOthers: number;
  /** Remaining pause after a failed creation. */
  pauseMs: number;
}

export interface DesiredPool {
  minWarm: number;
  maxWarm: number;
  idleTimeoutMs: number;
}

export interface PoolPlan {
  create: number;
  /** Ids. */
  remove: string[];
}

/** The engine creates this many at once without becoming slower for others. */
export const creationsAtOnce = 4;

export function planPool(view: PoolView, desired: DesiredPool): PoolPlan {
  const { maxWarm } = desired;
  const minWarm = Math.min(desired.minWarm, maxWarm);
  const stale = view.warm.filter((worker) => worker.stale);
  const fresh = view.warm.filter((worker) => !worker.stale);
  const remove = stale.map(({ id }) => id);
  let left = fresh.length;
  for (const { id, idleMs } of fresh.toSorted((a, b) => b.idleMs - a.idleMs)) {
    const spare = left > minWarm && idleMs >= desired.idleTimeoutMs;
    if (left <= maxWarm && !spare) break;
    remove.push(id);
    left--;
  }
  const missing = minWarm - left - view.creating;
  const room = maxWarm - view.warm.length - view.creating;
  const creating = view.creating + view.creatingOthers;
  const create = Math.min(missing, room, creationsAtOnce - creating);
  return { create: view.pauseMs > 0 ? 0 : Math.max(create, 0), remove };
}
