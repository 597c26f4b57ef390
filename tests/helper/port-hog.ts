// Runs in a worker: binds half of the ephemeral ports (0 or 1 selects which) without
// listening. After two of these, no process in the namespace can connect to anything. One
// process cannot have that many open files. Prints a line when it has bound them all.

import { readFileSync } from "node:fs";
import process from "node:process";

type Call = (...args: (number | Uint8Array)[]) => number;

declare const Deno: {
  dlopen(file: string, symbols: object): { symbols: Record<string, Call> };
};

const { socket, bind, close } = Deno.dlopen("libc.so.6", {
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
}).symbols;

const AF_INET = 2;
const SOCK_STREAM = 1;

const range = readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "utf8");
const [first = 0, last = 0] = range.trim().split(/\s+/).map(Number);
let wanted: number[] = [];
for (let port = first + Number(process.argv[2]); port <= last; port += 2) {
  wanted.push(port);
}

function isTaken(port: number): boolean {
  // struct sockaddr_in for 0.0.0.0
  const name = new Uint8Array(16);
  name.set([AF_INET, 0, port >> 8, port & 255]);
  const fd = socket!(AF_INET, SOCK_STREAM, 0);
  if (bind!(fd, name, name.length) === 0) return true;
  close!(fd);
  return false;
}

// Ports that are in use are taken as soon as they are free.
while (wanted.length > 0) {
  wanted = wanted.filter((port) => !isTaken(port));
  await new Promise((resolve) => setTimeout(resolve, 10));
}
console.log("bound all");
setInterval(() => {}, 1e9);
