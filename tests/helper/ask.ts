// Sends requests to a socket of the pool, one after the other, and prints each
// result: ask.ts SOCKET REQUEST...

import process from "node:process";
import { Client } from "../../lib/std/socket-lines.ts";

const [socket = "", ...requests] = process.argv.slice(2);
const client = new Client(socket);
for (const request of requests) {
  try {
    const result = await client.ask(JSON.parse(request), 10_000);
    console.log(JSON.stringify(result));
  } catch (error) {
    console.log(`error: ${(error as Error).message}`);
  }
}
client.close();
