// Tells a service which container a connection comes from, in the form of the PROXY
// protocol, version 2: a header before the first byte of the client.
// https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt

import { Buffer } from "node:buffer";
import type { Server, Socket } from "node:net";

/** The container's id; null for the shared network, where it cannot be known. */
export type Origin = string | null;

const signature = Buffer.from("\r\n\r\n\0\r\nQUIT\n", "latin1");
/** Version 2, command PROXY; no addresses. */
const start = Buffer.concat([signature, Buffer.from([0x21, 0x00])]);
const fixedLength = start.length + 2;
const uniqueId = 0x05;
const idLength = 64;
const headerLength = fixedLength + 3 + idLength;

/** How long the header may take: it is sent when the connection is opened. */
const headerMs = 5000;

/** The header of a connection of that origin. */
export function originHeader(origin: Origin): Buffer {
  if (origin === null) return Buffer.concat([start, Buffer.from([0, 0])]);
  const id = Buffer.from(origin, "latin1");
  const lengths = [0, 3 + idLength, uniqueId, 0, idLength];
  return Buffer.concat([start, Buffer.from(lengths), id]);
}

const fromShared = originHeader(null);

/** The id in a header; undefined if it is not one of ours. */
function idIn(header: Buffer): string | undefined {
  const id = header.toString("latin1", headerLength - idLength);
  if (!/^[0-9a-f]{64}$/.test(id)) return undefined;
  return header.equals(originHeader(id)) ? id : undefined;
}

/**
 * Reads the header from a new connection, and nothing after it. Rejects if there is
 * none, and destroys the socket.
 */
export function readOrigin(socket: Socket): Promise<Origin> {
  return new Promise((resolve, reject) => {
    let begin: Buffer | null = null;
    const settle = () => {
      clearTimeout(late);
      socket.off("readable", read);
      socket.off("close", refuse);
    };
    const refuse = () => {
      settle();
      socket.destroy();
      reject(new Error("the connection does not begin with its origin"));
    };
    const found = (origin: Origin) => {
      settle();
      resolve(origin);
    };
    const read = () => {
      // Null until there is enough, or it closes.
      begin ??= socket.read(fixedLength) as Buffer | null;
      if (begin === null) return;
      if (begin.equals(fromShared)) return found(null);
      const rest = socket.read(headerLength - fixedLength) as Buffer | null;
      if (rest === null) return;
      const id = idIn(Buffer.concat([begin, rest]));
      return id === undefined ? refuse() : found(id);
    };
    const late = setTimeout(refuse, headerMs);
    socket.on("close", refuse);
    socket.on("readable", read);
  });
}

/**
 * Has a server read the origin of each connection, and pass it to `begin`, before anything
 * else. The server itself listens: an HTTP server that only gets connections from another one
 * does not keep them alive, and applies no timeouts.
 */
export function readOrigins(
  server: Server,
  begin: (socket: Socket, origin: Origin) => void,
): void {
  const connected = server.listeners("connection");
  server.removeAllListeners("connection");
  server.on("connection", async (socket: Socket) => {
    socket.on("error", () => socket.destroy());
    try {
      begin(socket, await readOrigin(socket));
    } catch {
      return; // it does not come from nsenter
    }
    for (const listener of connected) listener.call(server, socket);
  });
}
