// What nsenter does with connections of workers.

import { Buffer } from "node:buffer";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join as joinPath } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Listeners } from "../../lib/nsenter/privileged/listeners.ts";
import {
  type AtPort,
  close,
  type Connection,
  hasRoom,
  hasSharedRoom,
  join,
  maxConnections,
} from "../../lib/nsenter/privileged/passing.ts";
import { waitFor } from "../../lib/std/wait.ts";

declare const Deno: {
  listen(
    options: { hostname: string; port: number },
  ): AsyncIterable<Connection> & { addr: { port: number }; close(): void };
  connect(options: { transport: "unix"; path: string }): Promise<Connection>;
};

const test = suite("passing");

/** A service, and the port at which nsenter would listen for it. */
async function serve(serves: (socket: Socket) => void) {
  const directory = mkdtempSync(joinPath(tmpdir(), "hal9000-passing-"));
  const path = joinPath(directory, "socket");
  const service = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => {});
    serves(socket);
  }).listen(path);
  await once(service, "listening");
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  void (async () => {
    for await (const client of listener) {
      const to = await Deno.connect({ transport: "unix", path });
      await join(client, to, () => {}).catch(() => {});
      close(client);
      close(to);
    }
  })();
  const { port } = listener.addr;
  const client = connect({ host: "127.0.0.1", port, allowHalfOpen: true });
  const got = { text: "", error: "" };
  client.on("data", (chunk) => got.text += chunk);
  client.on("error", ({ message }) => got.error = message);
  await once(client, "connect");
  return {
    client,
    got,
    end: () => {
      client.destroy();
      listener.close();
      service.close();
      rmSync(directory, { recursive: true });
    },
  };
}

const until = (holds: () => boolean, what: string) =>
  waitFor(holds, { for: what, timeoutMs: 5000 });

test("a client gets the answer of a service that closes during an upload", async () => {
  const { client, got, end } = await serve((socket) => {
    socket.once("data", () => {
      // It reads no more; what comes now fails.
      socket.pause();
      socket.write("refused: ");
      setTimeout(() => socket.write("too large", () => socket.destroy()), 200);
    });
  });
  const piece = Buffer.alloc(64 * 1024, "x");
  for (let sent = 0; sent < 40; sent++) {
    client.write(piece);
    await sleep(20);
  }
  await until(() => got.text.includes("too large"), "the whole answer");
  assert.is(got.text, "refused: too large");
  assert.is(got.error, "");
  end();
});

test("a client that ends its side still gets the answer", async () => {
  const { client, got, end } = await serve((socket) => {
    socket.on("data", () => {});
    socket.on("end", () => socket.end("all read"));
  });
  client.end("a request");
  await until(() => got.text === "all read", "the answer");
  end();
});

test("a service sees a client that has left", async () => {
  let closed = false;
  const { client, end } = await serve((socket) => {
    socket.resume();
    socket.on("close", () => closed = true).on("end", () => closed = true);
  });
  client.resetAndDestroy();
  await until(() => closed, "the end");
  end();
});

/** Ports with that many connections, and what was closed of them. */
function ports(...sizes: number[]): { ports: AtPort[]; closed: string[] } {
  const closed: string[] = [];
  const made = sizes.map((size, port) => ({
    passing: new Set(
      Array.from({ length: size }, (_, number) => ({
        isOver: false,
        client: {
          close: () => closed.push(`${port}:${number}`),
        } as unknown as Connection,
      })),
    ),
  }));
  return { ports: made, closed };
}

const { ofSharedPort, ofShared, ofWorker, ofAll } = maxConnections;

test("the ports of the shared network have a limit each, and one together", () => {
  const one = ports(ofSharedPort, 0);
  assert.not(hasSharedRoom(one.ports[0] as AtPort, one.ports));
  assert.ok(hasSharedRoom(one.ports[1] as AtPort, one.ports));
  const many = ports(...Array.from({ length: 10 }, () => ofShared / 10 + 1));
  assert.not(hasSharedRoom(many.ports[3] as AtPort, many.ports));
  assert.equal(many.closed, []);
});

test("clients of one port do not lock out those of another in the shared network", () => {
  const { ports: [first, second, third], closed } = ports(
    ofShared - ofSharedPort,
    ofSharedPort - 1,
    1,
  ) as { ports: [AtPort, AtPort, AtPort]; closed: string[] };
  const all = [first, second, third];
  assert.ok(hasSharedRoom(third, all));
  assert.equal(closed, ["0:0"]);
  assert.is(first.passing.size, ofShared - ofSharedPort - 1);
  // One that a service is done with goes first, whichever port it has.
  first.passing.add([...second.passing][0] as never);
  const over = [...second.passing][7];
  if (over) over.isOver = true;
  assert.ok(hasSharedRoom(third, all));
  assert.equal(closed, ["0:0", "1:7"]);
});

test("an isolated worker has a limit, and all together have one", () => {
  const { ports: own, closed } = ports(ofWorker - 1, 1);
  assert.not(hasRoom(own, ofWorker));
  const few = ports(1, 1);
  assert.ok(hasRoom(few.ports, ofAll - 1));
  assert.not(hasRoom(few.ports, ofAll));
  for (const over of own[1]?.passing ?? []) over.isOver = true;
  assert.ok(hasRoom(own, ofWorker));
  assert.equal(closed, ["1:0"]);
});

// Entering a namespace needs root, even this process's own.
const testAsRoot = process.getuid?.() === 0 ? test : test.skip;

testAsRoot(
  "a port whose listener fails is closed, and opened by the next request",
  async () => {
    const { listen } = Deno;
    const log: string[] = [];
    let closed = 0;
    let fail = (_: Error) => {};
    Deno.listen = () => ({
      addr: { port: 0 },
      close: () => closed++,
      [Symbol.asyncIterator]: () => ({
        next: () => new Promise((_, reject) => fail = reject),
      }),
    });
    try {
      const listeners = new Listeners(
        () => "/nowhere",
        (line) => log.push(line),
      );
      const [mark = ""] = readFileSync("/proc/self/environ", "utf8").split(
        "\0",
      );
      const request = {
        ...{ id: "a", pid: process.pid, mark },
        ...{ services: [{ port: 8000 }], shared: false },
      };
      assert.equal(listeners.open(request), []);
      await sleep(0);
      fail(new Error("Too many open files"));
      await until(() => closed > 0, "the end of the listener");
      assert.equal(log, ["Port 8000 was closed: Too many open files"]);
      Deno.listen = () => {
        throw new Error("asked to listen");
      };
      assert.throws(() => listeners.open(request), "asked to listen");
      listeners.close("a");
    } finally {
      Deno.listen = listen;
    }
  },
);

test.run();
