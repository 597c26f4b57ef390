// Shared slots: each worker has a limit. When more clients want a slot than there
// are, the worker with most slots gives one up.

export interface Holder {
  worker: string;
  /** Whether the holder has been idle for `idleMs`. */
  isIdle(idleMs: number): boolean;
}

export interface Limits {
  max: number;
  maxOfWorker: number;
  /** After this time idle, a slot may go to another client of the same worker. */
  ownIdleMs: number;
  /** After this time idle, a slot may go to another worker. */
  idleMs: number;
}

/**
 * Whether a worker may take one more slot, and which holder has to leave for it, if
 * any. `holders` are in the order of their arrival.
 */
export function slotFor<T extends Holder>(
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
  // Keep the balance: the newcomer must not end up with more slots than the other.
  return instead(idle ?? (most.length > own.length + 1 ? most[0] : undefined));
}

function instead<T>(holder: T | undefined): { isFree: boolean; instead?: T } {
  return holder ? { isFree: true, instead: holder } : { isFree: false };
}

/** The holders of the worker with most slots. */
export function largest<T extends { worker: string }>(holders: T[]): T[] {
  const byWorker = Map.groupBy(holders, ({ worker }) => worker);
  return [...byWorker.values()]
    .reduce((most, own) => own.length > most.length ? own : most, []);
}
