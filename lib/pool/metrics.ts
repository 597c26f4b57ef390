// What the pool counts and measures.

/** As many as the percentiles are taken from. */
const kept = 1000;

export class Metrics {
  warm = 0;
  readonly cold: Record<string, number> = {};
  creations = 0;
  failures = 0;
  lastFailure: string | null = null;
  readonly #latencies: number[] = [];

  claimed(milliseconds: number): void {
    this.warm++;
    this.#latencies.push(milliseconds);
    if (this.#latencies.length > kept) this.#latencies.shift();
  }

  refused(reason: string): void {
    // A reason may quote a path or an error; figures are by kind.
    const kind = reason.split(":")[0] ?? reason;
    this.cold[kind] = (this.cold[kind] ?? 0) + 1;
  }

  failed(message: string): void {
    this.failures++;
    this.lastFailure = message;
  }

  get latencyMs() {
    const sorted = this.#latencies.toSorted((a, b) => a - b);
    return {
      p50: percentile(sorted, 50),
      p95: percentile(sorted, 95),
      p99: percentile(sorted, 99),
    };
  }
}

/** Of sorted figures, by the nearest rank; null of none. */
export function percentile(sorted: number[], percent: number): number | null {
  const rank = Math.ceil(sorted.length * percent / 100);
  const value = sorted[Math.max(rank, 1) - 1];
  return value === undefined ? null : Math.round(value * 1000) / 1000;
}
