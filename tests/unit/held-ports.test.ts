import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Bound } from "../../lib/net/bind-call.ts";
import { HeldPorts } from "../../lib/net/held-ports.ts";

const test = suite("held-ports");

/** A fake kernel in which `taken` are in use, optionally without ::1. */
function kernel(taken: string[], { ipv6 = true } = {}) {
  const open = new Map<number, string>();
  let next = 10;
  return {
    open,
    calls: {
      bind: (address: string, port: number): Bound => {
        const name = `${address} ${port}`;
        if (address === "::1" && !ipv6) return { code: "EADDRNOTAVAIL" };
        if (taken.includes(name)) return { code: "EADDRINUSE" };
        open.set(next, name);
        return { fd: next++ };
      },
      close: (fd: number) => void open.delete(fd),
    },
  };
}

test("hold() binds both loopback addresses, once", () => {
  const { open, calls } = kernel([]);
  const holder = new HeldPorts(calls);
  holder.hold([8000]);
  assert.equal(holder.hold([8000]), { held: [8000], taken: [] });
  assert.equal([...open], [[10, "127.0.0.1 8000"], [11, "::1 8000"]]);
});

test("hold() releases ports that are no longer needed, and keeps the others", () => {
  const { open, calls } = kernel([], { ipv6: false });
  const holder = new HeldPorts(calls);
  holder.hold([8000, 3001]);
  assert.equal(holder.hold([3002, 8000]), { held: [3002, 8000], taken: [] });
  assert.equal([...open], [[10, "127.0.0.1 8000"], [12, "127.0.0.1 3002"]]);
});

test("hold() reports ports in use at either address, and retries", () => {
  const taken = ["127.0.0.1 3001", "::1 3002"];
  const { open, calls } = kernel(taken);
  const holder = new HeldPorts(calls);
  assert.equal(holder.hold([3001, 3002]), { held: [], taken: [3001, 3002] });
  assert.is(open.size, 0);
  taken.length = 0;
  assert.equal(holder.hold([3001, 3002]), { held: [3001, 3002], taken: [] });
  assert.is(open.size, 4);
});

test.run();
