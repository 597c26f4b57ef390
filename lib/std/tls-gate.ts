// Stands between a TCP connection and its TLS, and stops reading on request: under
// Deno 2.9.5, TLS reads all there is, however slowly its own reader is.

import type { Socket } from "node:net";
import { Duplex } from "node:stream";

export class Gate extends Duplex {
  readonly #socket: Socket;
  #isHeld = false;

  constructor(socket: Socket) {
    super({ allowHalfOpen: true });
    this.#socket = socket;
    socket.on("data", (chunk) => this.push(chunk));
    socket.on("end", () => this.push(null));
    socket.on("error", (error) => this.destroy(error));
    // An error without a listener would end the process; TLS gets "close".
    this.on("error", () => {});
    socket.on("close", () => this.destroy());
  }

  /** Stops reading; what was read before still arrives. */
  hold(): void {
    this.#isHeld = true;
    this.#socket.pause();
  }

  release(): void {
    this.#isHeld = false;
    this.#socket.resume();
  }

  override _read(): void {
    if (!this.#isHeld) this.#socket.resume();
  }

  override _write(
    chunk: Uint8Array,
    _: BufferEncoding,
    done: (error?: Error | null) => void,
  ): void {
    this.#socket.write(chunk, done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#socket.end(() => done());
  }

  override _destroy(
    error: Error | null,
    done: (error?: Error | null) => void,
  ): void {
    this.#socket.destroy();
    done(error);
  }
}
