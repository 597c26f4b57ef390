// Counters and latencies of the pool.

import { Latencies } from "../std/latencies.ts";

export class Metrics {
  warm = 0;
  readonly cold: Record<string, number> = {};
  creations = 0;
  failures = 0;
  lastFailure: string | null = null;
  readonly #latencies = new Latencies();

  claimed(milliseconds: number): void {
    this.warm++;
    this.#latencies.add(milliseconds);
  }

  refused(reason: string): void {
    // A reason may quote a path or an error; count by its kind.
    const kind = reason.split(":")[0] ?? reason;
    this.cold[kind] = (this.cold[kind] ?? 0) + 1;
  }

  failed(message: string): void {
    this.failures++;
    this.lastFailure = message;
  }

  get latencyMs() {
    return this.#latencies.percentiles;
  }
}
