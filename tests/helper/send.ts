// Sends a line to a unix socket and prints the answer until the socket is closed:
// send.ts SOCKET LINE

import { createConnection } from "node:net";
import process from "node:process";

const [path = "", line = ""] = process.argv.slice(2);
const socket = createConnection(path, () => socket.write(`${line}\n`));
socket.pipe(process.stdout);
