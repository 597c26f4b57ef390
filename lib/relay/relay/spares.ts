// Connections that are made ahead of the requests that will use them, so that these do not
// wait for it. Each is used once.

import type { Socket } from "node:net";

/** As many as requests may begin at the same moment. */
const maxSpares = 4;

/** Before servers close an idle connection, which a request could meet. */
const idleMs = 10_000;

/** So that making one does not delay the request that has taken the last. */
const delayMs = 200;

export class Spares<T extends { socket: Socket }> {
  readonly #spares = new Map<string, Set<T>>();

  /** A connection for the key; `connect` makes it, and another one for later. */
  async take(key: string, connect: () => Promise<T>): Promise<T> {
    const spares = this.#spares.get(key) ?? new Set();
    this.#spares.set(key, spares);
    const [found] = spares;
    if (found) spares.delete(found);
    const connection = found ?? await connect();
    setTimeout(() => void this.#add(key, spares, connect), delayMs);
    return connection;
  }

  async #add(
    key: string,
    spares: Set<T>,
    connect: () => Promise<T>,
  ): Promise<void> {
    if (spares.size >= maxSpares) return;
    let connection: T;
    try {
      connection = await connect();
    } catch {
      return; // the next request reports it
    }
    const { socket } = connection;
    const drop = () => {
      if (!spares.delete(connection)) return;
      if (spares.size === 0) this.#spares.delete(key);
      socket.destroy();
    };
    spares.add(connection);
    socket.on("error", drop);
    socket.on("close", drop);
    // Not "end", which would read from it.
    const late = setTimeout(drop, idleMs);
    socket.on("close", () => clearTimeout(late));
  }
}
