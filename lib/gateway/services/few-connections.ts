// Limits the number of connections to a server, as each may cost memory.

import type { Buffer } from "node:buffer";
import type { Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { Counts } from "../../std/counts.ts";
import type { ReadBytes } from "./read-bytes.ts";

/**
 * Maximum number of open requests per connection. The next request may arrive
 * before the event that the previous answer was written. Clients that wait for
 * answers send no more.
 */
const maxOpenRequests = 2;

/**
 * Size of the pieces in which a chunk with many requests is parsed; 64 KiB can hold
 * 2,000 requests. A body that contains "HTTP/1." often is only parsed more slowly.
 */
const pieceBytes = 1024;

/** Admits requests, and keeps their connections from being closed as idle. */
export interface FewConnections {
  admits(response: ServerResponse): boolean;
  hold(response: ServerResponse): void;
}

/**
 * Closes the oldest idle connection if there are more than `max`. A connection is
 * idle unless it is held for a response. One with too many open requests is closed
 * at once.
 */
export function fewConnections(
  server: Server,
  max: number,
  readBytes: ReadBytes,
): FewConnections {
  const idle = new Set<Socket>();
  const asked = new Counts<Socket>();
  const held = new Counts<Socket>();
  server.on("connection", (socket: Socket) => {
    parseInPieces(socket, readBytes);
    idle.add(socket);
    // A response that has not begun does not get "close" when its connection
    // closes.
    socket.on("close", () => {
      for (const sockets of [idle, asked, held]) sockets.delete(socket);
    });
    if (idle.size + held.size <= max) return;
    const [oldest = socket] = idle;
    // Now, not on its "close" event: many connections may arrive before that.
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

/** Stops parsing a chunk when its connection is closed. */
function parseInPieces(socket: Socket, readBytes: ReadBytes): void {
  // Otherwise the parser reads from the kernel itself, bypassing the socket's
  // events.
  // https://github.com/nodejs/node/blob/v24.0.0/lib/_http_server.js, unconsume()
  (socket as ParsedSocket).parser.unconsume();
  const [parse] = socket.listeners("data");
  if (!parse) {
    throw new Error(
      "Unsupported HTTP server: it does not read from the socket",
    );
  }
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

/** "close" alone is late: it does not come while a refused body is still arriving. */
function whenAnswered(response: ServerResponse, done: () => void): void {
  let isOpen = true;
  const once = () => {
    if (isOpen) done();
    isOpen = false;
  };
  response.on("finish", once);
  response.on("close", once);
}
