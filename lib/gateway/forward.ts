// Ports of the shared namespace, brought to the host: the forwarder lives in the
// namespace and listens on a unix socket of HAL9000_HOME. A connection there says
// a port in its first line, and is that port's from then on.

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
import type { Instance } from "../instance/instance.ts";

/** Of a first line: five digits and their end. */
const longestLine = 8;
const firstLineMs = 5000;

/** In the forwarder: listens on `path`, for its own user and group, until it is closed. */
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

/** Reads the first line byte for byte as it comes, and nothing behind it. */
function readPort(socket: Socket, found: (port: number) => void): void {
  let line = "";
  const late = setTimeout(() => socket.destroy(), firstLineMs);
  socket.on("close", () => clearTimeout(late));
  const read = () => {
    let byte: string | null;
    while ((byte = socket.read(1)?.toString("latin1") ?? null) !== null) {
      if (byte !== "\n") {
        line += byte;
        if (line.length > longestLine) return void socket.destroy();
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

/** What one says the other hears, until either breaks off. */
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

/** How long a forwarder that lives may take to refuse a port, on a busy machine. */
const answerMs = 10_000;

/**
 * Whether the forwarder lives and serves its socket. It is asked for port 0, which
 * there is not, and closes the connection.
 */
export async function forwardAnswers(
  { home }: Pick<Instance, "home">,
): Promise<boolean> {
  const socket = createConnection(home.forwardSocket);
  try {
    return await new Promise<boolean>((resolve) => {
      socket.setTimeout(answerMs, () => resolve(false));
      socket.on("error", () => resolve(false));
      socket.on("connect", () => socket.write("0\n"));
      socket.on("end", () => resolve(true)).on("close", () => resolve(true));
      socket.resume();
    });
  } finally {
    socket.destroy();
  }
}

/**
 * On the host: listens on 127.0.0.1:`hostPort` and passes each connection on to
 * `port` of the namespace, until `stop` is aborted. Throws a `busy` Failure where
 * the host's port is taken.
 */
export async function forwardPort(
  { home }: Pick<Instance, "home">,
  { port, hostPort }: { port: number; hostPort: number },
  stop: AbortSignal,
  ready: () => void,
): Promise<void> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    const passage = createConnection({
      path: home.forwardSocket,
      allowHalfOpen: true,
    });
    passage.write(`${port}\n`);
    joinSockets(socket, passage);
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
