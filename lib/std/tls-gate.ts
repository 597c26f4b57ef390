// Stands between a TCP connection and its TLS, and stops reading on request: under
// Deno 2.9.5, TLS reads all there is, however slowly its own reader is.

import type { Socket } from "node:net";
import { Duplex } from "node:stream";

export class Gate extends Duplex {
  readonly #socket: Duplex;
  #isHeld = false;

  constructor(socket: Duplex) {
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

/**
 * The same below the runtime's own TLS on a socket, which takes less time for each handshake.
 * There is no public way: pause() has no effect on a socket that TLS reads from.
 */
export class Valve {
  readonly #socket: Socket;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  hold(): void {
    this.#handle?.readStop();
  }

  release(): void {
    this.#handle?.readStart();
  }

  get #handle(): ReadHandle | null | undefined {
    return (this.#socket as unknown as { _handle?: ReadHandle })._handle;
  }
}

interface ReadHandle {
  readStop(): void;
  readStart(): void;
}
