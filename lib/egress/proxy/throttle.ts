// Lets each worker write a number of log entries at once and per second, and counts those
// that are left out.

interface Bucket {
  left: number;
  at: number;
  dropped: number;
}

export class Throttle {
  readonly #size: number;
  readonly #perSecond: number;
  readonly #now: () => number;
  readonly #buckets = new Map<string, Bucket>();

  constructor(
    size: number,
    perSecond: number,
    now: () => number = () => performance.now(),
  ) {
    this.#size = size;
    this.#perSecond = perSecond;
    this.#now = now;
  }

  /** How many entries were left out since the last one; undefined to leave this one out. */
  pass(worker: string): number | undefined {
    const now = this.#now();
    const bucket = this.#buckets.get(worker) ??
      { left: this.#size, at: now, dropped: 0 };
    const gained = (now - bucket.at) / 1000 * this.#perSecond;
    bucket.left = Math.min(bucket.left + gained, this.#size);
    bucket.at = now;
    this.#buckets.set(worker, bucket);
    if (bucket.left < 1) {
      bucket.dropped++;
      return undefined;
    }
    bucket.left--;
    const { dropped } = bucket;
    bucket.dropped = 0;
    return dropped;
  }

  /** Forgets workers that have ended. */
  keep(workers: ReadonlySet<string>): void {
    for (const worker of this.#buckets.keys()) {
      if (!workers.has(worker)) this.#buckets.delete(worker);
    }
  }
}
