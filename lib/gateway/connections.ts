// The connections to one server. A connection belongs to a worker from its first
// request on. Until then, and without a token, it counts as anonymous; when there
// are too many, the oldest idle anonymous connection is closed.

import type { Socket } from "node:net";
import { anonymous } from "../mcp/identity.ts";
import { largest } from "./slots.ts";

/** Per server, for all its clients. */
export const maxConnections = 1024;

/** Connections without a token. */
const maxAnonymous = 768;

/** Per worker. */
const maxOfWorker = 64;

/** A connection without a request is closed after this time. */
const firstRequestMs = 10_000;

/** A connection without traffic is closed after this time. */
const idleMs = 10 * 60_000;

interface Connection {
  socket: Socket;
  worker: string;
  /** Whether it has sent a request. */
  isKnown: boolean;
  /** Number of open requests. */
  requests: number;
}

export class Connections {
  /** In the order of their arrival. */
  readonly #open = new Map<Socket, Connection>();
  /** Connections without a token. */
  readonly #anonymous = new Set<Connection>();

  add(socket: Socket): void {
    this.#makeRoom();
    const connection: Connection = {
      socket,
      worker: anonymous,
      isKnown: false,
      requests: 0,
    };
    this.#open.set(socket, connection);
    this.#anonymous.add(connection);
    socket.setTimeout(idleMs, () => socket.destroy());
    socket.on("close", () => this.#forget(connection));
    socket.on("error", () => {}); // the client has left
    // Data that is not a request does not extend this.
    setTimeout(() => {
      if (!connection.isKnown) socket.destroy();
    }, firstRequestMs).unref();
  }

  /**
   * Records a request. Returns a function to call when it has been answered, or
   * undefined if its worker has too many connections.
   */
  noteRequest(socket: Socket, worker: string): (() => void) | undefined {
    const connection = this.#open.get(socket);
    if (!connection) return () => {};
    connection.isKnown = true;
    if (connection.worker !== worker) {
      connection.worker = worker;
      if (worker === anonymous) this.#anonymous.add(connection);
      else this.#anonymous.delete(connection);
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

  /** Closes a connection immediately, as many may arrive in the same moment. */
  #makeRoom(): void {
    const areMany = this.#anonymous.size >= maxAnonymous;
    if (!areMany && this.#open.size < maxConnections) return;
    const most = areMany ? this.#anonymous : largest([...this.#open.values()]);
    let closed: Connection | undefined;
    for (const connection of most) {
      closed ??= connection;
      if (connection.requests > 0) continue;
      closed = connection;
      break;
    }
    if (!closed) return;
    this.#forget(closed);
    closed.socket.destroy();
  }

  #forget(connection: Connection): void {
    this.#open.delete(connection.socket);
    this.#anonymous.delete(connection);
  }
}
