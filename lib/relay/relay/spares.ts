// Connections that are made ahead of the requests that will use them, so that these do not
// wait for it. Each is used once.

import type { Socket } from "node:net";
import { Counts } from "../../std/counts.ts";

/** As many as requests may begin at the same moment; only as many as did are made. */
const maxSpares = 32;

/** Before servers close an idle connection, which a request could meet. */
const defaultIdleMs = 10_000;

/** So that making one does not delay the request that has taken the last. */
const delayMs = 200;

export class Spares<T extends { socket: Socket }> {
  readonly #spares = new Map<string, Set<T>>();
  /** Those that are being made. */
  readonly #coming = new Counts<string>();
  /** Connections that are in use: the next request may follow the end of one. */
  readonly #used = new Counts<string>();
  readonly #idleMs: number;

  constructor(idleMs = defaultIdleMs) {
    this.#idleMs = idleMs;
  }

  /** A connection for the key; `connect` makes it, and another one for later. */
  async take(key: string, connect: () => Promise<T>): Promise<T> {
    const [found] = this.#spares.get(key) ?? [];
    if (found) this.#remove(key, found);
    const connection = found ?? await connect();
    const { socket } = connection;
    if (!socket.closed) {
      this.#used.add(key);
      socket.once("close", () => this.#used.remove(key));
    }
    setTimeout(() => void this.#add(key, connect), delayMs);
    return connection;
  }

  async #add(key: string, connect: () => Promise<T>): Promise<void> {
    if (this.#count(key) >= maxSpares) return;
    this.#coming.add(key);
    let connection: T;
    try {
      connection = await connect();
    } catch {
      return; // the next request reports it
    } finally {
      this.#coming.remove(key);
    }
    const { socket } = connection;
    if (socket.destroyed) return;
    const spares = this.#spares.get(key) ?? new Set();
    this.#spares.set(key, spares.add(connection));
    const drop = () => {
      if (this.#remove(key, connection)) socket.destroy();
    };
    socket.on("error", drop);
    socket.on("close", drop);
    // Not "end", which would read from it.
    const late = setTimeout(() => {
      drop();
      if (this.#count(key) < this.#used.of(key)) void this.#add(key, connect);
    }, this.#idleMs);
    socket.on("close", () => clearTimeout(late));
  }

  #count(key: string): number {
    return this.#coming.of(key) + (this.#spares.get(key)?.size ?? 0);
  }

  #remove(key: string, connection: T): boolean {
    const spares = this.#spares.get(key);
    if (!spares?.delete(connection)) return false;
    if (spares.size === 0) this.#spares.delete(key);
    return true;
  }
}
