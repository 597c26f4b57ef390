// What runs in the forwarder: connections to 127.0.0.1 of the workers' namespace are
// carried to the gateway's sockets on the host.

import { once } from "node:events";
import { createConnection, createServer } from "node:net";
import type { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { messageOf } from "../errors.ts";
import { joinSockets } from "../forward.ts";
import { logToStderr } from "../log.ts";
import { openTunnel } from "./tunnel.ts";

/** Where the sockets are in the forwarder. */
export const socketDirectory = "/run/mcp";

/** To a server. The gateway ends the oldest silent one before it comes to that. */
const maxConnections = 1024 + 128;

/** Between two tries to listen on a port that somebody has. */
const retryMs = 2000;

/** Listens on each PORT=NAME. */
export async function carryAll(ports: string[]): Promise<void> {
  await Promise.all(ports.map(async (pair) => {
    const [port = "", name = ""] = pair.split("=");
    while (!await carry(Number(port), name)) {
      logToStderr(`${name}: port ${port} is taken by somebody in a worker`);
      await sleep(retryMs);
    }
  }));
}

/** Gives whether it could listen. */
async function carry(port: number, name: string): Promise<boolean> {
  const server = createServer({ allowHalfOpen: true }, (client) => {
    client.on("error", () => client.destroy());
    client.setNoDelay(true);
    reach(name).then(
      (gateway) => joinSockets(client, gateway),
      (error) => {
        logToStderr(`${name}: ${messageOf(error)}`);
        client.destroy();
      },
    );
  });
  server.maxConnections = maxConnections;
  server.listen(port, "127.0.0.1");
  try {
    await once(server, "listening");
    return true;
  } catch {
    return false;
  }
}

/** The gateway's end of a connection to a server. */
async function reach(name: string): Promise<Duplex> {
  return await openTunnel(socketDirectory, name) ??
    createConnection({
      path: `${socketDirectory}/${name}.sock`,
      allowHalfOpen: true,
    });
}
