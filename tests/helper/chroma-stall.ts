// Runs in a worker: opens COUNT connections to ChromaDB and sends part of a 41 MB body on
// each, without finishing it. Reopens a connection 5 seconds after it is closed.

import { createConnection } from "node:net";
import process from "node:process";

const [count = 2500] = process.argv.slice(2);
const head = "POST /api/v2/x HTTP/1.1\r\nHost: x\r\n" +
  "Content-Type: application/json\r\nContent-Length: 41000000\r\n\r\n";
const piece = new Uint8Array(64 * 1024).fill(32);

let opened = 0;
function open(): void {
  const socket = createConnection(8000, "127.0.0.1");
  socket.on("connect", () => {
    if (++opened === Number(count)) console.log("opened all");
    socket.write(head);
    for (let at = 0; at < 5; at++) socket.write(piece);
  });
  socket.on("error", () => {});
  socket.on("close", () => setTimeout(open, 5000));
  // Without reading, the end of the connection is not detected.
  socket.resume();
}
for (let at = 0; at < Number(count); at++) open();
