// A worker that binds every port that the kernel gives out by itself, so that nobody in
// the namespace can connect to anything. Prints how many it has.

import { createServer } from "node:net";

let count = 0;
await Promise.all(
  Array.from({ length: 28_300 }, () =>
    new Promise<void>((resolve) => {
      const server = createServer();
      server.once("error", () => resolve());
      server.listen(0, "0.0.0.0", () => {
        count++;
        resolve();
      });
    })),
);
console.log(`bound ${count}`);
setInterval(() => {}, 1e9);
