// Counts by key; a key whose count is zero is forgotten.

export class Counts<K> extends Map<K, number> {
  of(key: K): number {
    return this.get(key) ?? 0;
  }

  add(key: K): void {
    this.set(key, this.of(key) + 1);
  }

  /** Returns how many are left. */
  remove(key: K): number {
    const left = this.of(key) - 1;
    if (left > 0) this.set(key, left);
    else this.delete(key);
    return left;
  }
}
