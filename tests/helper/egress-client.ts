// Speaks to the egress proxy as the helper that listens in a worker's namespace does:
//   egress-client.ts SOCKET CONTAINER HOST:PORT     a tunnel, and one HTTP request in it
//   egress-client.ts SOCKET CONTAINER http://URL    a request of the URL
// Prints all that it receives.

import { createConnection } from "node:net";
import process from "node:process";
import { originHeader } from "../../lib/std/origin.ts";

const [path = "", container = "", place = ""] = process.argv.slice(2);
const socket = createConnection(path);
socket.write(originHeader(container));
if (place.startsWith("http://")) {
  socket.write(`GET ${place} HTTP/1.1\r\nHost: other.example\r\n\r\n`);
} else {
  socket.write(`CONNECT ${place} HTTP/1.1\r\nHost: ${place}\r\n\r\n`);
  socket.write("GET / HTTP/1.0\r\n\r\n");
}
socket.on("error", ({ message }) => {
  process.stderr.write(`${message}\n`);
  process.exitCode = 1;
});
socket.pipe(process.stdout);
