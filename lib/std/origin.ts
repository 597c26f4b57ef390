// Tells a service which container a connection comes from, in the form of the PROXY
// protocol, version 2: a header before the first byte of the client.
// https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt

import { Buffer } from "node:buffer";
import type { Socket } from "node:net";

const signature = Buffer.from("\r\n\r\n\0\r\nQUIT\n", "latin1");
/** Version 2, command PROXY; no addresses. */
const start = Buffer.concat([signature, Buffer.from([0x21, 0x00])]);
const uniqueId = 0x05;
const idLength = 64;
const headerLength = start.length + 2 + 3 + idLength;

/** How long the header may take: it is sent when the connection is opened. */
const headerMs = 5000;

/** The header of a connection from the container with that id. */
export function originHeader(container: string): Buffer {
  const id = Buffer.from(container, "latin1");
  const lengths = [0, 3 + idLength, uniqueId, 0, idLength];
  return Buffer.concat([start, Buffer.from(lengths), id]);
}

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
export function readOrigin(socket: Socket): Promise<string> {
  return new Promise((resolve, reject) => {
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
    const read = () => {
      const header = socket.read(headerLength) as Buffer | null;
      if (header === null) return; // until there is enough, or it closes
      const id = idIn(header);
      if (id === undefined) return refuse();
      settle();
      resolve(id);
    };
    const late = setTimeout(refuse, headerMs);
    socket.on("close", refuse);
    socket.on("readable", read);
  });
}
