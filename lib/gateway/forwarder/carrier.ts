// What the forwarder does: forwards connections on 127.0.0.1 of the workers'
// namespace to ChromaDB's socket in the parent and to the gateway's sockets on the
// host, and connections of the host to the workers' ports.

import { once } from "node:events";
import { chmodSync, rmSync } from "node:fs";
import {
  createConnection,
  createServer,
  type Server,
  type Socket,
} from "node:net";
import type { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { boundedProxy, chromadbBounds } from "./bounded-proxy.ts";
import { admitToOwnDatabase } from "./chromadb-access.ts";
import { messageOf } from "../../std/errors.ts";
import { joinSockets, serveForward } from "../forward.ts";
import { logToStderr } from "../../std/log.ts";
import { readOrigin } from "../../std/origin.ts";
import { listen as listenForLines } from "../../std/socket-lines.ts";
import type { ForwarderPorts, ForwarderStatus } from "../forwarder-status.ts";
import { openTunnel } from "../tunnel.ts";
import { askDatabase } from "../worker-database.ts";

/** The gateway's sockets; not in /run, which belongs to root in the image. */
export const socketDirectory = "/services/mcp";

/** The sockets shared with the parent and the host. */
export const waysDirectory = "/services/ways";

/** Per server. The gateway closes the oldest idle connection before this. */
const maxConnections = 1024 + 128;

/** Interval of the attempts to listen on an occupied port. */
const retryMs = 2000;

export interface CarriedPorts {
  chromadb: number;
  /** PORT=NAME of the MCP servers. */
  servers: string[];
  /** Whether to forward the relay's port. */
  relay: boolean;
}

/** See relay/names.ts, which is above this folder. */
const relayPort = 443;

/** Forwards connections until the process ends. */
export async function carryAll(ports: CarriedPorts): Promise<void> {
  const servers = ports.servers.map((pair) => {
    const [port = "", name = ""] = pair.split("=");
    return { port: Number(port), name, server: carrierTo(name) };
  });
  const chromadb = `${waysDirectory}/chromadb.sock`;
  const all = [
    {
      port: ports.chromadb,
      name: "ChromaDB",
      server: boundedProxy(
        chromadb,
        chromadbBounds,
        admitToOwnDatabase(chromadb, {
          originOf: (socket) => origins.get(socket),
          databaseOf: (container) =>
            askDatabase(`${waysDirectory}/databases.sock`, container),
        }),
      ),
    },
    ...servers,
  ];
  const status: ForwarderPorts = { serves: [], taken: [] };
  await Promise.all([
    serveStatus(status),
    serveForward(`${waysDirectory}/forward.sock`),
    ...all.map(({ port, name, server }) =>
      takePort(port, name, server, status)
    ),
    // Isolated workers reach the relay directly.
    ...(ports.relay
      ? [takePort(relayPort, "the relay", carrierToRelay(), status)]
      : []),
    ...all.map(({ port, server }) => serveIsolated(port, server)),
  ]);
}

/** Retries until the port is free. */
async function takePort(
  port: number,
  name: string,
  server: Server,
  status: ForwarderPorts,
): Promise<void> {
  while (!await listen(server, { port, reusePort: true })) {
    if (!status.taken.includes(port)) status.taken.push(port);
    logToStderr(`${name}: port ${port} is occupied by a process in a worker`);
    await sleep(retryMs);
  }
  status.taken = status.taken.filter((other) => other !== port);
  status.serves.push(port);
}

/** The containers of isolated workers, by their connections. */
const origins = new WeakMap<Socket, string>();

/** Serves connections that nsenter passes on from isolated workers. */
async function serveIsolated(port: number, server: Server): Promise<void> {
  const path = `${waysDirectory}/services/${port}.sock`;
  const front = createServer(
    { allowHalfOpen: true },
    async (socket: Socket) => {
      socket.on("error", () => socket.destroy());
      try {
        origins.set(socket, await readOrigin(socket));
        server.emit("connection", socket);
      } catch {
        // It does not come from nsenter.
      }
    },
  );
  rmSync(path, { force: true });
  front.listen(path);
  await once(front, "listening");
  chmodSync(path, 0o660);
}

/**
 * Listens on loopback; returns whether it could. With `reusePort` it shares the
 * port with the net container's holder, which runs as the same user. The kernel
 * gives the port to no other user meanwhile, so that no worker can answer instead.
 */
async function listen(
  server: Server,
  options: { port: number; reusePort: boolean },
): Promise<boolean> {
  const address = { ...options, host: "127.0.0.1" };
  server.listen(address);
  try {
    await once(server, "listening");
    return true;
  } catch {
    return false;
  }
}

async function serveStatus(ports: ForwarderPorts): Promise<void> {
  const path = `${waysDirectory}/forwarder.sock`;
  await listenForLines(path, async (): Promise<ForwarderStatus> => ({
    ...ports,
    portsLeft: await arePortsLeft(),
  }));
  chmodSync(path, 0o660);
}

/** A worker can bind all ephemeral ports; then no process can connect. */
async function arePortsLeft(): Promise<boolean> {
  const server = createServer();
  const left = await listen(server, { port: 0, reusePort: false });
  server.close();
  return left;
}

function carrierTo(name: string): Server {
  const server = createServer({ allowHalfOpen: true }, (client) => {
    client.on("error", () => client.destroy());
    client.setNoDelay(true);
    connectToServer(name).then(
      (gateway) => joinSockets(client, gateway),
      (error) => {
        logToStderr(`${name}: ${messageOf(error)}`);
        client.destroy();
      },
    );
  });
  server.maxConnections = maxConnections;
  return server;
}

function carrierToRelay(): Server {
  const path = `${waysDirectory}/relay.sock`;
  const server = createServer({ allowHalfOpen: true }, (client) => {
    client.on("error", () => client.destroy());
    client.setNoDelay(true);
    joinSockets(client, createConnection({ path, allowHalfOpen: true }));
  });
  server.maxConnections = maxConnections;
  return server;
}

/** Opens a connection to a server at the gateway. */
async function connectToServer(name: string): Promise<Duplex> {
  return await openTunnel(socketDirectory, name) ??
    createConnection({
      path: `${socketDirectory}/${name}.sock`,
      allowHalfOpen: true,
    });
}
