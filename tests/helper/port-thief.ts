// Runs in a worker and tries to take the ports of services: it tries to listen on each, in
// every possible way, without a pause, and answers any client. Prints each port that it
// gets, and once a second the number of attempts.

import { createServer } from "node:net";
import process from "node:process";

const ports = process.argv.slice(2).map(Number);
const reply = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
let tries = 0;
setInterval(() => console.log(`tried ${tries}`), 1000);

function listen(port: number, host: string, reusePort: boolean) {
  const server = createServer((client) => client.end(reply));
  return new Promise<boolean>((resolve) => {
    server.once("error", () => resolve(false));
    server.listen({ port, host, reusePort }, () => resolve(true));
  });
}

while (true) {
  for (const port of ports) {
    for (const host of ["127.0.0.1", "0.0.0.0", "::1"]) {
      for (const reusePort of [false, true]) {
        tries++;
        if (!await listen(port, host, reusePort)) continue;
        console.log(`got ${host} ${port}`);
      }
    }
  }
  await new Promise((resolve) => setTimeout(resolve));
}
