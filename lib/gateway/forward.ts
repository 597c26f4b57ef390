// Forwards ports of the workers' network namespaces to the host. nsenter listens on a unix
// socket in HAL9000_HOME: a client sends a container's id and a port as the first line, and
// the connection is then piped to that port of the container's network.

import { createServer, type Socket } from "node:net";
import { once } from "node:events";
import type { Duplex } from "node:stream";
import { Failure } from "../std/errors.ts";
import { openSocket, type Reach } from "../instance/parent-socket.ts";

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

/** How long nsenter may take to refuse a port, on a busy machine. */
const answerMs = 10_000;

/** Connects to a port of a container's network. */
export function openPort(
  reach: Reach,
  container: string,
  port: number,
): Duplex {
  const socket = openSocket(reach, reach.home.connectSocket);
  socket.write(`${container} ${port}\n`);
  return socket;
}

/**
 * Whether nsenter runs and serves its socket. It closes a connection that names no
 * container.
 */
export async function forwardAnswers(reach: Reach): Promise<boolean> {
  const socket = openPort(reach, "none", 0);
  let late: ReturnType<typeof setTimeout> | undefined;
  try {
    return await new Promise<boolean>((resolve) => {
      late = setTimeout(() => resolve(false), answerMs);
      socket.on("error", () => resolve(false));
      socket.on("end", () => resolve(true)).on("close", () => resolve(true));
      socket.resume();
    });
  } finally {
    clearTimeout(late);
    socket.destroy();
  }
}

/**
 * On the host: listens on 127.0.0.1:`hostPort` and forwards each connection to
 * `port` of the container's network, until `stop` is aborted. Throws a `busy` Failure if
 * the host's port is in use, a `failed` one if nsenter does not answer.
 */
export async function forwardPort(
  reach: Reach,
  { port, hostPort, container }: {
    port: number;
    hostPort: number;
    /** The id of an isolated worker, or of the net container. */
    container: string;
  },
  stop: AbortSignal,
  ready: () => void,
): Promise<void> {
  if (!await forwardAnswers(reach)) {
    throw new Failure("failed", "nsenter does not answer", {
      hint: "See what is wrong: claudy doctor",
    });
  }
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    joinSockets(socket, openPort(reach, container, port));
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
