// A worker that is after the ports of services: it tries to listen at each, every way
// it can, without a pause, and answers whoever comes. Prints each port that it got, and
// once a second how often it tried.

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
