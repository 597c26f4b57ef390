// What is read from sockets is garbage soon, and lies outside of V8's heap: V8 alone
// lets 600 MB of it come together while connections come and go.

import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** Takes some 20 ms each time. */
const collectedBytes = 16 * 1024 ** 2;

/** Counts bytes that were read, and collects garbage after so many. */
export class ReadBytes {
  readonly #collect: () => void;
  #bytes = 0;

  constructor() {
    setFlagsFromString("--expose-gc");
    this.#collect = runInNewContext("gc");
  }

  add(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes < collectedBytes) return;
    this.#bytes = 0;
    this.#collect();
  }
}
