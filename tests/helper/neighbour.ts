// Runs in a worker. `neighbour.ts serve` listens as a dev server and other programs do:
// on a port, and on a socket of the abstract namespace. `neighbour.ts visit`, in another
// worker, tries to reach them, and prints what it reaches.

import { readFileSync } from "node:fs";
import { createConnection, createServer } from "node:net";
import process from "node:process";

const port = 20555;
const abstract = "\0hal9000-neighbour";

if (process.argv[2] === "serve") {
  const server = () => createServer((client) => client.end("hello"));
  server().listen(port, "127.0.0.1");
  server().listen(abstract);
} else {
  for (const [name, at] of Object.entries({ port, abstract })) {
    const socket = typeof at === "number"
      ? createConnection(at, "127.0.0.1")
      : createConnection(at);
    socket.on("data", () => console.log(`reached ${name}`));
    socket.on("error", () => {});
  }
  const sockets = readFileSync("/proc/net/unix", "utf8");
  if (sockets.includes("hal9000-neighbour")) console.log("saw abstract");
  // The services' own sockets are not mounted, but their paths may be listed.
  const foreign = sockets.split("\n").filter((line) => /\.sock$/.test(line));
  if (foreign.length > 0) console.log("saw paths");
}
