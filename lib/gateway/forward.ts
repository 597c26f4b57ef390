// Forwards ports of the workers' network namespaces to the host. The forwarder runs
// in the shared one and listens on a unix socket in HAL9000_HOME. A client sends a
// port number as the first line; the connection is then piped to that port. For isolated
// workers, nsenter does the same, and the line begins with the container's id.

import { chmodSync, rmSync } from "node:fs";
import {
  createConnection,
  createServer,
  type Server,
  type Socket,
} from "node:net";
import { once } from "node:events";
import type { Duplex } from "node:stream";
import { Failure } from "../std/errors.ts";
import { openSocket, type Reach } from "../instance/parent-socket.ts";

/** A port number has at most five digits. */
const maxLineLength = 8;
const firstLineMs = 5000;

/** In the forwarder: listens on `path`, for its own user and group. */
export async function serveForward(path: string): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => socket.destroy());
    readPort(socket, (port) => joinSockets(socket, connectTo(port)));
  });
  rmSync(path, { force: true });
  server.listen(path);
  await once(server, "listening");
  chmodSync(path, 0o660);
  return server;
}

/** Reads the first line byte by byte, and nothing after it. */
function readPort(socket: Socket, found: (port: number) => void): void {
  let line = "";
  const late = setTimeout(() => socket.destroy(), firstLineMs);
  socket.on("close", () => clearTimeout(late));
  const read = () => {
    let byte: string | null;
    while ((byte = socket.read(1)?.toString("latin1") ?? null) !== null) {
      if (byte !== "\n") {
        line += byte;
        if (line.length > maxLineLength) return void socket.destroy();
        continue;
      }
      clearTimeout(late);
      socket.off("readable", read);
      const port = Number(line);
      if (!isPort(port)) return void socket.destroy();
      return found(port);
    }
  };
  socket.on("readable", read);
}

function connectTo(port: number): Socket {
  return createConnection({ port, host: "127.0.0.1", allowHalfOpen: true });
}

/** Pipes both ways until either side closes. */
export function joinSockets(a: Duplex, b: Duplex): void {
  for (const [from, to] of [[a, b], [b, a]] as const) {
    from.on("error", () => to.destroy());
    from.on("close", () => to.destroy());
    from.pipe(to);
  }
}

export function isPort(port: number): boolean {
  return Number.isInteger(port) && port >= 1 && port <= 65535;
}

/** How long a running forwarder may take to refuse a port, on a busy machine. */
const answerMs = 10_000;

/**
 * Whether the forwarder runs and serves its socket. It closes a connection that
 * requests port 0, which is invalid.
 */
export async function forwardAnswers(reach: Reach): Promise<boolean> {
  const socket = openSocket(reach, reach.home.forwardSocket);
  let late: ReturnType<typeof setTimeout> | undefined;
  try {
    return await new Promise<boolean>((resolve) => {
      late = setTimeout(() => resolve(false), answerMs);
      socket.on("error", () => resolve(false));
      socket.on("end", () => resolve(true)).on("close", () => resolve(true));
      socket.write("0\n");
      socket.resume();
    });
  } finally {
    clearTimeout(late);
    socket.destroy();
  }
}

/**
 * On the host: listens on 127.0.0.1:`hostPort` and forwards each connection to
 * `port` of the namespace, until `stop` is aborted. Throws a `busy` Failure if the
 * host's port is in use, a `failed` one if the forwarder does not answer.
 */
export async function forwardPort(
  reach: Reach,
  { port, hostPort, isolated }: {
    port: number;
    hostPort: number;
    /** The id of an isolated worker; undefined for the shared network. */
    isolated?: string | undefined;
  },
  stop: AbortSignal,
  ready: () => void,
): Promise<void> {
  if (isolated === undefined && !await forwardAnswers(reach)) {
    throw new Failure("failed", "The forwarder does not answer", {
      hint: "See what is wrong: claudy doctor",
    });
  }
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    const { forwardSocket, connectSocket } = reach.home;
    const upstream = openSocket(
      reach,
      isolated ? connectSocket : forwardSocket,
    );
    upstream.write(isolated ? `${isolated} ${port}\n` : `${port}\n`);
    joinSockets(socket, upstream);
  });
  server.listen(hostPort, "127.0.0.1");
  try {
    await once(server, "listening");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const kind = code === "EADDRINUSE" ? "busy" : "failed";
    throw new Failure(kind, `Cannot listen on 127.0.0.1:${hostPort}: ${code}`, {
      cause: error,
      hint: "Choose another: claudy ports open PORT HOST_PORT",
    });
  }
  ready();
  if (!stop.aborted) await once(stop, "abort");
  for (const socket of sockets) socket.destroy();
  server.close();
}
