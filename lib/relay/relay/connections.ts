// The connections of workers to the relay. One that waits for a request may be closed for
// another; none has more than one open request, since the parser emits all those of a
// chunk at once: 64 KiB can hold 2,000.

import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { Counts } from "../../std/counts.ts";
import type { Origin } from "./authorize.ts";
import type { Bounds } from "./bounds.ts";

export interface Connection {
  socket: Socket;
  /** Undefined also until it is known. */
  origin: Origin;
  isAsking: boolean;
}

export class Connections {
  readonly #bounds: Pick<Bounds, "connections" | "perWorker">;
  readonly #all = new Set<Connection>();
  /** The one that waits longest comes first. */
  readonly #idle = new Set<Connection>();
  /** Of isolated workers. */
  readonly #counts = new Counts<Origin>();
  /** Open requests of sessions, by their homes. */
  readonly #asking = new Counts<string>();

  constructor(bounds: Pick<Bounds, "connections" | "perWorker">) {
    this.#bounds = bounds;
  }

  /** Undefined, and the socket is closed, if there are too many that are in use. */
  add(socket: Socket): Connection | undefined {
    if (this.#all.size >= this.#bounds.connections) this.#evict(() => true);
    if (this.#all.size >= this.#bounds.connections) {
      socket.destroy();
      return undefined;
    }
    const connection = { socket, origin: undefined, isAsking: false };
    this.#all.add(connection);
    this.#idle.add(connection);
    socket.on("close", () => this.#remove(connection));
    return connection;
  }

  /** Its origin has become known; false, and it is closed, if that has too many. */
  identify(connection: Connection, origin: Origin): boolean {
    if (!this.#all.has(connection)) return false;
    if (origin === undefined) return true;
    const { perWorker } = this.#bounds;
    const isFull = () => this.#counts.of(origin) >= perWorker;
    if (isFull()) this.#evict((other) => other.origin === origin);
    if (isFull()) {
      connection.socket.destroy();
      return false;
    }
    connection.origin = origin;
    this.#counts.add(origin);
    return true;
  }

  /** Whether a request may be served. Closes the connection if it has another one. */
  begin(connection: Connection, response: ServerResponse): boolean {
    if (connection.isAsking) connection.socket.destroy();
    if (connection.socket.destroyed) return false;
    connection.isAsking = true;
    this.#idle.delete(connection);
    // "finish" may come after the next request of a client that has read the reply.
    response.on("prefinish", () => {
      connection.isAsking = false;
      if (this.#all.has(connection)) this.#idle.add(connection);
    });
    return true;
  }

  /** Whether a session may have another open request: if so, call `release` after it. */
  take(home: string): boolean {
    if (this.#asking.of(home) >= this.#bounds.perWorker) return false;
    this.#asking.add(home);
    return true;
  }

  release(home: string): void {
    this.#asking.remove(home);
  }

  #evict(isMeant: (connection: Connection) => boolean): void {
    for (const connection of this.#idle) {
      if (!isMeant(connection)) continue;
      // Now, not on its "close" event: many connections may arrive before that.
      this.#remove(connection);
      connection.socket.destroy();
      return;
    }
  }

  #remove(connection: Connection): void {
    this.#idle.delete(connection);
    if (!this.#all.delete(connection)) return;
    const { origin } = connection;
    if (origin !== undefined) this.#counts.remove(origin);
  }
}
