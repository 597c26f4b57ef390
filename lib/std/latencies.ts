// Percentiles of the last thousand latencies.

const maxSamples = 1000;

export class Latencies {
  readonly #milliseconds: number[] = [];

  add(milliseconds: number): void {
    this.#milliseconds.push(milliseconds);
    if (this.#milliseconds.length > maxSamples) this.#milliseconds.shift();
  }

  get percentiles() {
    const sorted = this.#milliseconds.toSorted((a, b) => a - b);
    return {
      p50: percentile(sorted, 50),
      p95: percentile(sorted, 95),
      p99: percentile(sorted, 99),
    };
  }
}

/** A percentile of sorted values, by the nearest-rank method; null if there are none. */
export function percentile(sorted: number[], percent: number): number | null {
  const rank = Math.ceil(sorted.length * percent / 100);
  const value = sorted[Math.max(rank, 1) - 1];
  return value === undefined ? null : Math.round(value * 1000) / 1000;
}
