// How many warm workers to make and which to remove: a function of what is there
// and what is wanted, and of nothing else.

export interface WarmView {
  id: string;
  /** How long it has been waiting. */
  idleMs: number;
  /** Whether one made now would be another: image, limits, network. */
  stale: boolean;
}

export interface PoolView {
  warm: WarmView[];
  /** Those that are being made. */
  creating: number;
  /** Those of other images that are being made. */
  creatingOthers: number;
  /** How long the engine is to be left in peace, after it refused. */
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

/** As many as the engine makes at once without becoming slower for others. */
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
