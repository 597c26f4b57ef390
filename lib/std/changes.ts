// Lets code wait until something has changed.

export class Changes {
  readonly #waiting = new Set<() => void>();

  /** How many wait. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Something has changed: ends the waits. */
  tell(): void {
    for (const resume of this.#waiting) resume();
    this.#waiting.clear();
  }

  /** Whether there was a change before that time, in milliseconds of performance.now(). */
  next(until: number): Promise<boolean> {
    const leftMs = until - performance.now();
    if (leftMs <= 0) return Promise.resolve(false);
    return new Promise((resolve) => {
      const resume = () => {
        clearTimeout(late);
        resolve(true);
      };
      const late = setTimeout(() => {
        this.#waiting.delete(resume);
        resolve(false);
      }, leftMs);
      this.#waiting.add(resume);
    });
  }
}
