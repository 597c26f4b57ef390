// The connections to one server. Which worker's one is shows with its first request: until
// then, and without a token, it counts among those that nobody is known to need, of which
// the oldest silent one makes room for the next.

import type { Socket } from "node:net";
import { anonymous } from "../mcp/identity.ts";
import { largest } from "./places.ts";

/** To a server, of all its clients. */
export const maxConnections = 1024;

/** Of those without a token. */
const maxAnonymous = 768;

/** Of one worker. */
const maxOfWorker = 64;

/** A connection that has not asked for anything by then is no client's. */
const silentMs = 10_000;

/** Nor is one on which nothing has passed for so long. */
const quietMs = 10 * 60_000;

interface Connection {
  socket: Socket;
  worker: string;
  /** Whether it has sent a request. */
  isKnown: boolean;
  /** Requests that are open. */
  requests: number;
}

export class Connections {
  /** In the order in which they came. */
  readonly #open = new Map<Socket, Connection>();
  /** Those without a token. */
  readonly #unknown = new Set<Connection>();

  add(socket: Socket): void {
    this.#makeRoom();
    const connection: Connection = {
      socket,
      worker: anonymous,
      isKnown: false,
      requests: 0,
    };
    this.#open.set(socket, connection);
    this.#unknown.add(connection);
    socket.setTimeout(quietMs, () => socket.destroy());
    socket.on("close", () => this.#forget(connection));
    socket.on("error", () => {}); // it has gone
    // Bytes that are no request do not put that off.
    setTimeout(() => {
      if (!connection.isKnown) socket.destroy();
    }, silentMs).unref();
  }

  /**
   * Notes a request; undefined where its worker has too many connections. Gives what is to
   * be called when it has been answered.
   */
  heard(socket: Socket, worker: string): (() => void) | undefined {
    const connection = this.#open.get(socket);
    if (!connection) return () => {};
    connection.isKnown = true;
    if (connection.worker !== worker) {
      connection.worker = worker;
      if (worker === anonymous) this.#unknown.add(connection);
      else this.#unknown.delete(connection);
      if (worker !== anonymous && !this.#mayStay(connection)) return;
    }
    connection.requests++;
    return () => void connection.requests--;
  }

  close(): void {
    for (const socket of this.#open.keys()) socket.destroy();
  }

  #mayStay(connection: Connection): boolean {
    const others = [...this.#open.values()].filter((other) =>
      other.worker === connection.worker && other !== connection
    );
    if (others.length < maxOfWorker) return true;
    const idle = others.find(({ requests }) => requests === 0);
    idle?.socket.destroy();
    return idle !== undefined;
  }

  /** At once: many may come in the same moment. */
  #makeRoom(): void {
    const areMany = this.#unknown.size >= maxAnonymous;
    if (!areMany && this.#open.size < maxConnections) return;
    const most = areMany ? this.#unknown : largest([...this.#open.values()]);
    let gone: Connection | undefined;
    for (const connection of most) {
      gone ??= connection;
      if (connection.requests > 0) continue;
      gone = connection;
      break;
    }
    if (!gone) return;
    this.#forget(gone);
    gone.socket.destroy();
  }

  #forget(connection: Connection): void {
    this.#open.delete(connection.socket);
    this.#unknown.delete(connection);
  }
}
