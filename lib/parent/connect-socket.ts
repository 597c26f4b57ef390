// connect-socket: pipes its input and output to a socket in HAL9000_HOME. The host runs it
// in the parent if unix sockets do not cross to the engine's machine.

import { createConnection } from "node:net";
import { join } from "node:path";
import process from "node:process";

/** How long a server may be silent after the host's side has ended. */
const silentMs = 30_000;

/** Has no options and no help, because it has to start quickly for each connection. */
function connectSocket(socketPath: string): void {
  const { stdin, stdout, stderr, env } = process;
  const socket = createConnection({
    path: join(env["HAL9000_HOME"] ?? "/", socketPath),
    allowHalfOpen: true,
  });
  socket.on("error", ({ code }: NodeJS.ErrnoException) => {
    stderr.write(code ?? "ECONNRESET", () => process.exit(1));
  });
  socket.on("end", () => stdout.end(() => process.exit()));
  stdout.on("error", () => process.exit());
  // The engine does not end this process when the host's connection ends.
  stdin.on("end", () => socket.setTimeout(silentMs, () => process.exit()));
  stdin.pipe(socket);
  socket.pipe(stdout, { end: false });
}

if (import.meta.main) connectSocket(String(process.argv[2]));
