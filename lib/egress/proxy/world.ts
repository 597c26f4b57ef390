// How the proxy reaches servers; tests pass their own.

import { lookup } from "node:dns/promises";
import { createConnection, type Socket } from "node:net";
import { isIP } from "node:net";

export interface World {
  /** The addresses of a name. */
  lookup: (name: string) => Promise<string[]>;
  /** A connection to an address, which is not resolved again. */
  connect: (address: string, port: number) => Socket;
}

export const realWorld: World = {
  lookup: async (name) =>
    (await lookup(name, { all: true })).map(({ address }) => address),
  connect: (address, port) => {
    if (isIP(address) === 0) throw new Error(`not an address: ${address}`);
    return createConnection({ host: address, port, allowHalfOpen: true });
  },
};

/** Connects to the first address that answers. Rejects with the last error. */
export async function connectFirst(
  world: World,
  addresses: readonly string[],
  port: number,
  timeoutMs: number,
): Promise<{ socket: Socket; address: string }> {
  let last: unknown = new Error("the name has no address");
  for (const address of addresses) {
    try {
      const socket = world.connect(address, port);
      await connected(socket, timeoutMs);
      return { socket, address };
    } catch (error) {
      last = error;
    }
  }
  throw last;
}

function connected(socket: Socket, timeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const late = setTimeout(
      () => socket.destroy(new Error("it does not answer")),
      timeoutMs,
    );
    // Stays: an error of a socket without a listener would end the process.
    socket.on("error", (error) => {
      clearTimeout(late);
      reject(error);
    });
    socket.once("connect", () => {
      clearTimeout(late);
      resolve();
    });
  });
}

/** Rejects after the timeout. */
export async function within<T>(
  promise: Promise<T>,
  timeoutMs: number,
  message: string,
): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(message)), timeoutMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
