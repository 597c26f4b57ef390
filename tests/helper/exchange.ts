// Exchanges two paths in a loop, as a worker could: deno run -A exchange.ts A B [MS].
// renameat2(2) with RENAME_EXCHANGE; MS is the pause between two exchanges.

import { setTimeout as sleep } from "node:timers/promises";

declare const Deno: {
  args: string[];
  dlopen(file: string, symbols: object): {
    symbols: { renameat2(...args: (number | Uint8Array)[]): number };
  };
};

const { symbols } = Deno.dlopen("libc.so.6", {
  renameat2: {
    parameters: ["i32", "buffer", "i32", "buffer", "u32"],
    result: "i32",
  },
});
const [one = "", other = "", pauseMs] = Deno.args;
const [a, b] = [one, other].map((path) =>
  new TextEncoder().encode(`${path}\0`)
);
while (a && b) {
  symbols.renameat2(-100, a, -100, b, 2);
  if (pauseMs) await sleep(Number(pauseMs));
}
