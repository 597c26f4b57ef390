// Data read from sockets soon becomes garbage outside of V8's heap. Without
// explicit collection, 600 MB of it pile up while connections come and go.

import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** A collection takes about 20 ms. */
const collectEveryBytes = 16 * 1024 ** 2;

/** Counts bytes that were read, and collects garbage every `collectEveryBytes`. */
export class ReadBytes {
  readonly #collect: () => void;
  #bytes = 0;

  constructor() {
    setFlagsFromString("--expose-gc");
    this.#collect = runInNewContext("gc");
  }

  add(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes < collectEveryBytes) return;
    this.#bytes = 0;
    this.#collect();
  }
}
