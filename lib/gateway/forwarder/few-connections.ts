// The connections to a server of which each may cost memory: few at a time.

import type { Buffer } from "node:buffer";
import type { Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { ReadBytes } from "./read-bytes.ts";

/**
 * Requests of one connection that are open. The next may come before the event that the
 * answer to the one before it is written; more are sent by nobody who waits for answers.
 */
const maxOpenRequests = 2;

/**
 * Of what is parsed at once where many requests were read at once: 64 KiB can hold 2,000.
 * A body that only looks so takes longer.
 */
const pieceBytes = 1024;

/** Whether a request may be answered, and what holds its connection until then. */
export interface FewConnections {
  admits(response: ServerResponse): boolean;
  hold(response: ServerResponse): void;
}

/**
 * Where there are more than `most`, the one that is idle for longest goes. One is idle
 * until it is held for a response. One with too many open requests goes at once.
 */
export function fewConnections(
  server: Server,
  most: number,
  readBytes: ReadBytes,
): FewConnections {
  const idle = new Set<Socket>();
  const asked = new Counts();
  const held = new Counts();
  server.on("connection", (socket: Socket) => {
    parseInPieces(socket, readBytes);
    idle.add(socket);
    // An answer that has not begun does not close with its connection.
    socket.on("close", () => {
      for (const sockets of [idle, asked, held]) sockets.delete(socket);
    });
    if (idle.size + held.size <= most) return;
    const [oldest = socket] = idle;
    // Not with its "close" alone: many may come before that.
    idle.delete(oldest);
    oldest.destroy();
  });
  return {
    admits: (response) => {
      const { socket } = response.req;
      if (socket.destroyed) return false;
      asked.add(socket);
      whenAnswered(response, () => asked.remove(socket));
      if (asked.of(socket) <= maxOpenRequests) return true;
      socket.destroy();
      return false;
    },
    hold: (response) => {
      const { socket } = response.req;
      if (socket.destroyed) return;
      idle.delete(socket);
      held.add(socket);
      whenAnswered(response, () => {
        if (held.remove(socket) <= 0 && !socket.destroyed) idle.add(socket);
      });
    },
  };
}

/** Parses no more of what was read once the connection is ended. */
function parseInPieces(socket: Socket, readBytes: ReadBytes): void {
  // Else the parser reads from the kernel itself, past the events of the socket.
  // https://github.com/nodejs/node/blob/v24.0.0/lib/_http_server.js, unconsume()
  (socket as ParsedSocket).parser.unconsume();
  const [parse] = socket.listeners("data");
  if (!parse) throw new Error("The HTTP server reads in another way");
  socket.removeAllListeners("data");
  socket.on("data", (chunk: Buffer) => {
    readBytes.add(chunk.length);
    const step = holdsManyRequests(chunk) ? pieceBytes : chunk.length;
    for (let at = 0; at < chunk.length && !socket.destroyed; at += step) {
      parse.call(socket, chunk.subarray(at, at + step));
    }
  });
}

function holdsManyRequests(chunk: Buffer): boolean {
  let at = -1;
  for (let count = 0; count <= maxOpenRequests; count++) {
    at = chunk.indexOf("HTTP/1.", at + 1);
    if (at < 0) return false;
  }
  return true;
}

type ParsedSocket = Socket & { parser: { unconsume(): void } };

/** "close" alone does not come while the rest of a refused body does. */
function whenAnswered(response: ServerResponse, done: () => void): void {
  let isOpen = true;
  const once = () => {
    if (isOpen) done();
    isOpen = false;
  };
  response.on("finish", once);
  response.on("close", once);
}

class Counts extends Map<Socket, number> {
  of(socket: Socket): number {
    return this.get(socket) ?? 0;
  }

  add(socket: Socket): void {
    this.set(socket, this.of(socket) + 1);
  }

  /** Gives how many are left. */
  remove(socket: Socket): number {
    const left = this.of(socket) - 1;
    if (left > 0) this.set(socket, left);
    else this.delete(socket);
    return left;
  }
}
