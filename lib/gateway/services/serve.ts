// Serves workers: ChromaDB, within limits, and MCP servers at a gateway that unix sockets
// do not reach. nsenter brings the connections.

import { createServer, type Server, type Socket } from "node:net";
import { boundedProxy, chromadbBounds } from "./bounded-proxy.ts";
import { admitToOwnDatabase } from "./chromadb-access.ts";
import { listenForWorkers } from "../../std/become.ts";
import { messageOf } from "../../std/errors.ts";
import { joinSockets } from "../forward.ts";
import { logToStderr } from "../../std/log.ts";
import { type Origin, readOrigins } from "../../std/origin.ts";
import { openTunnel } from "../tunnel.ts";
import { askDatabase } from "../worker-database.ts";

export interface ServedPorts {
  chromadb: number;
  /** PORT=NAME of MCP servers. */
  servers: string[];
}

/** Connections that have not sent their origin, and those that have, of each service. */
const maxConnections = 4096;

/** The origins of connections. */
const origins = new WeakMap<Socket, Origin>();

/**
 * Serves PORT.sock for each service. The current directory is that of the files which are
 * shared with the host: this process may lose the right to find it.
 */
export async function serveAll(
  ports: ServedPorts,
  gid: number,
): Promise<void> {
  const chromadb = { host: "127.0.0.1", port: ports.chromadb };
  const admit = admitToOwnDatabase(chromadb, {
    originOf: (socket) => {
      const origin = origins.get(socket);
      if (origin === undefined) throw new Error("a connection has no origin");
      return origin;
    },
    databaseOf: (container) => askDatabase("databases.sock", container),
  });
  await serve(
    ports.chromadb,
    gid,
    boundedProxy(chromadb, chromadbBounds, admit),
  );
  for (const pair of ports.servers) {
    const [port = "", name = ""] = pair.split("=");
    const join = (socket: Socket) => joinGateway(socket, name);
    await serve(Number(port), gid, createServer({ allowHalfOpen: true }, join));
  }
}

async function serve(port: number, gid: number, server: Server): Promise<void> {
  const path = `services/${port}.sock`;
  readOrigins(server, (socket, origin) => origins.set(socket, origin));
  server.maxConnections = maxConnections;
  await listenForWorkers(server, path, gid);
}

function joinGateway(client: Socket, name: string): void {
  const opened = openTunnel(".", name) ??
    Promise.reject(new Error("the gateway has no tunnel"));
  opened.then(
    (gateway) => joinSockets(client, gateway),
    (error) => {
      logToStderr(`${name}: ${messageOf(error)}`);
      client.destroy();
    },
  );
}
