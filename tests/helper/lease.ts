// Holds write leases on files, as their owner may: whoever opens one waits until the
// kernel breaks the lease, 45 seconds by default, fcntl(2). Prints a line when it has
// them: deno run -A lease.ts FILE...

import { closeSync, openSync } from "node:fs";
import process from "node:process";

declare const Deno: {
  dlopen(file: string, symbols: object): {
    symbols: { fcntl(file: number, command: number, value: number): number };
  };
};

const { symbols: { fcntl } } = Deno.dlopen("libc.so.6", {
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
});

const [F_SETSIG, F_SETLEASE, F_WRLCK] = [10, 1024, 1];
const SIGURG = 23; // ignored by default, unlike SIGIO

const held = new Set<string>();
const take = (path: string) => {
  if (held.has(path)) return;
  try {
    const file = openSync(path, "r");
    fcntl(file, F_SETSIG, SIGURG);
    // Kept open: while it is being broken, the lease is not given up.
    if (fcntl(file, F_SETLEASE, F_WRLCK) === 0) held.add(path);
    else closeSync(file);
  } catch { /* in use */ }
};
const paths = process.argv.slice(2);
setInterval(() => paths.forEach(take), 5);
await new Promise((resolve) => setTimeout(resolve, 100));
console.log(`leases: ${held.size}`);
