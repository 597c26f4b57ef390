// Stands for nsenter's socket: connects each client to the port of this machine that its
// first line names.

import { once } from "node:events";
import { createConnection, createServer, type Server } from "node:net";
import { joinSockets } from "../../lib/gateway/forward.ts";

/** Serves `container` alone; the lines that it gets are added to `lines`. */
export async function serveConnect(
  path: string,
  container: string,
  lines: string[] = [],
): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => socket.destroy());
    socket.once("data", (bytes) => {
      const [line = "", ...rest] = bytes.toString().split("\n");
      lines.push(line);
      const [id, port] = line.split(" ");
      if (id !== container) return void socket.destroy();
      const host = "127.0.0.1";
      const to = createConnection({ port: Number(port), host });
      to.write(rest.join("\n"));
      joinSockets(socket, to);
    });
  }).listen(path);
  await once(server, "listening");
  return server;
}
