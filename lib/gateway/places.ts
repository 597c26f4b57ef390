// Places that workers share: each has some at most, and while there are more who want one
// than there are, whoever has most gives one up.

export interface Holder {
  worker: string;
  /** Whether nobody has used it for so long. */
  isIdle(idleMs: number): boolean;
}

export interface Limits {
  max: number;
  maxOfWorker: number;
  /** A place that was idle for so long goes to another of the same worker, if it must. */
  ownIdleMs: number;
  /** And to another worker. */
  idleMs: number;
}

/**
 * Whether a worker may have one place more, and whose place that is, if not a free one.
 * `holders` stand in the order in which they came.
 */
export function placeFor<T extends Holder>(
  worker: string,
  holders: Iterable<T>,
  { max, maxOfWorker, ownIdleMs, idleMs }: Limits,
): { isFree: boolean; instead?: T } {
  const all = [...holders];
  const own = all.filter((holder) => holder.worker === worker);
  if (own.length >= maxOfWorker) {
    return instead(own.find((holder) => holder.isIdle(ownIdleMs)));
  }
  if (all.length < max) return { isFree: true };
  const most = largest(all);
  const idle = most.find((holder) => holder.isIdle(idleMs)) ??
    all.find((holder) => holder.isIdle(idleMs));
  // With one more for the newcomer nobody is to have less than it.
  return instead(idle ?? (most.length > own.length + 1 ? most[0] : undefined));
}

function instead<T>(holder: T | undefined): { isFree: boolean; instead?: T } {
  return holder ? { isFree: true, instead: holder } : { isFree: false };
}

/** The holders of the worker that has most. */
export function largest<T extends { worker: string }>(holders: T[]): T[] {
  const byWorker = Map.groupBy(holders, ({ worker }) => worker);
  return [...byWorker.values()]
    .reduce((most, own) => own.length > most.length ? own : most, []);
}
