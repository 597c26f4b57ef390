// The limits of the proxy, with a service started by the test.

import { mkdtempSync, rmSync } from "node:fs";
import { once } from "node:events";
import { Buffer } from "node:buffer";
import { createServer, type IncomingMessage, request } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  boundedProxy,
  type Bounds,
  chromadbBounds,
} from "../../lib/gateway/services/bounded-proxy.ts";
import { originHeader, readOrigins } from "../../lib/std/origin.ts";

const test = suite("bounded-proxy");

/** A place of each kind for these tests, but for those that they are about. */
const slotsOf = (slots: Partial<Bounds["slots"]>) => ({
  ...chromadbBounds.slots,
  ...slots,
});

interface Reply {
  status: number | undefined;
  text: string;
}

/**
 * A service that responds when `release` is called, behind a proxy. With `origins`, the
 * proxy's connections begin with their origin, as in the parent.
 */
async function serve(bounds: Partial<Bounds> = {}, origins = false) {
  const directory = mkdtempSync(join(tmpdir(), "bounded-proxy-"));
  const path = join(directory, "service.sock");
  const held: (() => void)[] = [];
  const seen = { served: 0, most: 0, open: 0, headers: {} as object };
  let holding = false;
  const service = createServer((asked, response) => {
    seen.open++;
    seen.most = Math.max(seen.most, seen.open);
    seen.headers = asked.headers;
    let bytes = 0;
    asked.on("data", (chunk: Uint8Array) => bytes += chunk.length);
    response.on("close", () => seen.open--);
    asked.on("end", () => {
      const answer = () => {
        seen.served++;
        const [, size] = /size=(\d+)/.exec(asked.url ?? "") ?? [];
        if (size) return response.end(Buffer.alloc(Number(size), "x"));
        response.end(`${asked.method} ${asked.url} ${bytes}`);
      };
      if (holding) held.push(answer);
      else answer();
    });
  }).listen(path);
  await once(service, "listening");
  const proxy = boundedProxy({ socketPath: path }, {
    ...chromadbBounds,
    ...bounds,
  });
  if (origins) readOrigins(proxy, () => {});
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  const { port } = proxy.address() as AddressInfo;
  const ask = (
    body: string | undefined,
    { chunked = false, url = "/x" } = {},
  ): Promise<Reply> =>
    new Promise((resolve, reject) => {
      const asked = request({
        port,
        host: "127.0.0.1",
        path: url,
        method: body === undefined ? "GET" : "POST",
        agent: false,
        headers: body === undefined || chunked
          ? {}
          : { "content-length": body.length },
      }, (response: IncomingMessage) => {
        let text = "";
        response.on("data", (chunk) => text += chunk);
        response.on(
          "end",
          () => resolve({ status: response.statusCode, text }),
        );
      });
      asked.on("error", reject);
      if (chunked) asked.write("");
      asked.end(body);
    });
  return {
    port,
    ask,
    seen,
    hold: () => holding = true,
    held,
    release: () => {
      holding = false;
      for (const answer of held.splice(0)) answer();
    },
    close: () => {
      proxy.closeAllConnections();
      proxy.close();
      service.closeAllConnections();
      service.close();
      rmSync(directory, { recursive: true });
    },
  };
}

const until = async (probe: () => boolean) => {
  while (!probe()) await new Promise((resolve) => setTimeout(resolve, 5));
};

test("forwards method, path, body and response with any framing", async () => {
  const { ask, seen, close } = await serve();
  assert.equal(await ask(undefined, { url: "/a?b=c" }), {
    status: 200,
    text: "GET /a?b=c 0",
  });
  assert.equal(await ask("abc"), { status: 200, text: "POST /x 3" });
  assert.equal(await ask("abcd", { chunked: true }), {
    status: 200,
    text: "POST /x 4",
  });
  assert.not("keep-alive" in seen.headers);
  close();
});

test("refuses oversized requests, with or without a content length, and keeps running", async () => {
  const { ask, seen, close } = await serve({ bodyBytes: 100_000 });
  const large = "x".repeat(100_001);
  assert.is((await ask(large)).status, 413);
  assert.is(seen.open, 0);
  assert.is((await ask(large, { chunked: true })).status, 413);
  await until(() => seen.open === 0);
  assert.is(seen.served, 0);
  assert.is((await ask("x".repeat(100_000))).status, 200);
  close();
});

test("limits concurrent large requests, and serves small ones meanwhile", async () => {
  const service = await serve({
    smallBytes: 10,
    slots: slotsOf({ large: { served: 2, waiting: 3 } }),
  });
  const { ask, held, seen } = service;
  service.hold();
  const large = Array.from({ length: 5 }, () => ask("x".repeat(11)));
  await until(() => held.length === 2);
  // The queue is full, so the client gets an immediate response.
  assert.is((await ask("x".repeat(11))).status, 503);
  const small = ask("x");
  await until(() => held.length === 3);
  service.release();
  assert.is((await small).status, 200);
  for (const reply of await Promise.all(large)) assert.is(reply.status, 200);
  assert.is(seen.most, 3);
  service.close();
});

test("a disconnected client keeps its slot until the service has responded", async () => {
  const service = await serve({
    smallBytes: 0,
    slots: slotsOf({ large: { served: 1, waiting: 3 } }),
  });
  const { held, seen } = service;
  service.hold();
  const gone = connect(service.port, "127.0.0.1");
  gone.write("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx");
  await until(() => held.length === 1);
  gone.destroy();
  const next = service.ask("y");
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.is(held.length, 1);
  service.release();
  assert.is((await next).status, 200);
  assert.is(seen.served, 2);
  service.close();
});

test("frees the slot of a client that stops waiting, and disconnects a slow client", async () => {
  const service = await serve({
    smallBytes: 0,
    slots: slotsOf({ large: { served: 1, waiting: 1 } }),
    bodyMs: 100,
  });
  service.hold();
  const slow = connect(service.port, "127.0.0.1");
  slow.write("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx");
  const [answer] = await once(slow, "data");
  assert.match(String(answer), /^HTTP\/1.1 408 /);
  slow.destroy();
  const first = service.ask("x");
  await until(() => service.held.length === 1);
  const waiting = connect(service.port, "127.0.0.1");
  waiting.write("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx");
  await new Promise((resolve) => setTimeout(resolve, 50));
  waiting.destroy();
  await new Promise((resolve) => setTimeout(resolve, 50));
  const second = service.ask("x");
  await new Promise((resolve) => setTimeout(resolve, 50));
  service.release();
  assert.is((await first).status, 200);
  assert.is((await second).status, 200);
  service.close();
});

test("responds 503 if waiting for a slot takes too long, and 502 without a service", async () => {
  const service = await serve({
    smallBytes: 0,
    slots: slotsOf({ large: { served: 1, waiting: 1 } }),
    waitMs: 50,
  });
  service.hold();
  const first = service.ask("x");
  await until(() => service.held.length === 1);
  assert.is((await service.ask("x")).status, 503);
  service.release();
  await first;
  service.close();
  const proxy = boundedProxy(
    { socketPath: "/nowhere.sock" },
    chromadbBounds,
  );
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  const { port } = proxy.address() as AddressInfo;
  const response = await fetch(`http://127.0.0.1:${port}/`);
  assert.is(response.status, 502);
  await response.body?.cancel();
  proxy.closeAllConnections();
  proxy.close();
});

test("clients that send no body take no slot, and do not displace clients that do", async () => {
  const service = await serve({
    slots: slotsOf({ small: { served: 2, waiting: 1 } }),
    connections: 20,
    smallMs: 300,
  });
  const mute = Array.from({ length: 20 }, () => {
    const socket = connect(service.port, "127.0.0.1");
    socket.write("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n");
    socket.on("error", () => {});
    return socket;
  });
  await Promise.all(mute.map((socket) => once(socket, "connect")));
  for (let at = 0; at < 5; at++) {
    assert.is((await service.ask("x")).status, 200);
  }
  const last = mute.at(-1)!;
  const [answer] = await once(last, "data") as [Uint8Array];
  assert.match(new TextDecoder().decode(answer), "HTTP/1.1 408");
  for (const socket of mute) socket.destroy();
  service.close();
});

test("closes the longest idle connection when there are too many", async () => {
  const service = await serve({ connections: 3 });
  const open = Array.from(
    { length: 3 },
    () => connect(service.port, "127.0.0.1"),
  );
  await Promise.all(open.map((socket) => once(socket, "connect")));
  const closed = once(open[0]!, "close");
  assert.is((await service.ask("x")).status, 200);
  await closed;
  assert.is(open.filter(({ destroyed }) => !destroyed).length, 2);
  for (const socket of open) socket.destroy();
  service.close();
});

/** Clients that send a request and do not read the response. */
async function askUnread(port: number, count: number, head: string) {
  const clients = Array.from(
    { length: count },
    () => connect(port, "127.0.0.1"),
  );
  for (const client of clients) {
    client.on("error", () => {});
    client.write(`${head} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n`);
  }
  await Promise.all(clients.map((client) => once(client, "connect")));
  return clients;
}

async function within(ms: number, replies: Promise<Reply>[]) {
  const begun = performance.now();
  for (const reply of await Promise.all(replies)) assert.is(reply.status, 200);
  const tookMs = performance.now() - begun;
  assert.ok(tookMs < ms, `took ${Math.round(tookMs)} ms`);
}

test("unread large responses do not delay small ones", async () => {
  const service = await serve();
  const clients = await askUnread(
    service.port,
    40,
    "POST /get?size=20000000",
  );
  await until(() => service.seen.served >= 2);
  await within(5000, [service.ask(undefined), service.ask("x")]);
  assert.ok(service.seen.most <= 10, `${service.seen.most} at a time`);
  for (const client of clients) client.destroy();
  const many = await askUnread(service.port, 50, "GET /list?size=4000000");
  await until(() => service.seen.open >= 4);
  await within(5000, [service.ask(undefined), service.ask("x")]);
  for (const client of many) client.destroy();
  service.close();
});

test("aborts a response that is read too slowly, and completes one read in time", async () => {
  const service = await serve({ stallMs: 1000, minRate: 1e9 });
  const [slow] = await askUnread(service.port, 1, "POST /get?size=20000000");
  const ended = new Promise((resolve) => slow!.on("close", resolve));
  // 64 KiB every 20 ms: never idle, but too slow.
  slow!.on("data", () => {
    slow!.pause();
    setTimeout(() => slow!.resume(), 20);
  });
  await ended;
  await until(() => service.seen.open === 0);
  const { text } = await service.ask("x", { url: "/get?size=20000000" });
  assert.is(text.length, 20_000_000);
  service.close();
});

test("reads a small response from the service even if the client does not read", async () => {
  const service = await serve({
    slots: slotsOf({ get: { served: 1, waiting: 9 } }),
  });
  const unread = connect(service.port, "127.0.0.1");
  const ask = "GET /?size=65536 HTTP/1.1\r\nHost: x\r\n\r\n";
  // Until the kernel's buffers are full.
  for (let before = -1; service.seen.served > before;) {
    before = service.seen.served;
    unread.write(ask);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await within(1000, [service.ask(undefined)]);
  unread.destroy();
  service.close();
});

test("closes a connection that pipelines requests", async () => {
  const service = await serve();
  service.hold();
  const client = connect(service.port, "127.0.0.1");
  client.on("error", () => {});
  client.resume();
  client.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2000));
  await once(client, "close");
  assert.ok(service.seen.open <= 2);
  service.release();
  service.close();
});

test("counts a refused client that keeps sending as an idle connection", async () => {
  const service = await serve({ connections: 5, bodyBytes: 100_000 });
  const refused: Socket[] = [];
  for (let at = 0; at < 8; at++) {
    const client = connect(service.port, "127.0.0.1");
    client.on("error", () => {});
    client.write(
      "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n",
    );
    const [answer] = await once(client, "data");
    assert.match(String(answer), /^HTTP\/1.1 413 /);
    refused.push(client);
  }
  await until(() => refused.filter(({ closed }) => closed).length >= 3);
  assert.is((await service.ask("x")).status, 200);
  for (const client of refused) client.destroy();
  service.close();
});

/** A connection as nsenter opens it, and what it has received. */
async function connectFromWorker(port: number) {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  const got = { text: "", isEnded: false };
  socket.on("data", (chunk) => got.text += chunk);
  socket.on("error", () => {});
  for (const event of ["end", "close"]) {
    socket.on(event, () => got.isEnded = true);
  }
  await once(socket, "connect");
  socket.write(originHeader(null));
  return { socket, got };
}

test("keeps a connection with an origin alive for further requests", async () => {
  const { port, close } = await serve({}, true);
  const { socket, got } = await connectFromWorker(port);
  for (const path of ["/one", "/two"]) {
    socket.write(`GET ${path} HTTP/1.1\r\nhost: x\r\n\r\n`);
    await until(() => got.text.includes(`GET ${path} 0`) || got.isEnded);
    assert.match(got.text, `GET ${path} 0`);
  }
  assert.not(got.isEnded);
  close();
});

test("cuts a connection that sends no head in time, or none at all", async () => {
  const { port, close } = await serve({ headMs: 200 }, true);
  const half = await connectFromWorker(port);
  half.socket.write("GET / HTTP/1.1\r\nhos");
  const silent = await connectFromWorker(port);
  const late = performance.now() + 5000;
  await until(() =>
    half.got.isEnded && silent.got.isEnded || performance.now() > late
  );
  assert.ok(half.got.isEnded, "half a head");
  assert.ok(silent.got.isEnded, "no head");
  close();
});

test("a client that is still sending its body gets the whole refusal", async () => {
  const bodyBytes = 100_000;
  const { port, close } = await serve({ bodyBytes }, true);
  const { socket, got } = await connectFromWorker(port);
  const size = 20 * bodyBytes;
  socket.write(`POST / HTTP/1.1\r\nhost: x\r\ncontent-length: ${size}\r\n\r\n`);
  await until(() => got.text.includes("413") || got.isEnded);
  const piece = Buffer.alloc(bodyBytes, "x");
  for (let sent = 0; sent < size; sent += piece.length) {
    assert.not(got.isEnded, `closed after ${sent} bytes`);
    socket.write(piece);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert.match(got.text, "A request can have at most");
  socket.write("GET /next HTTP/1.1\r\nhost: x\r\n\r\n");
  await until(() => got.text.includes("GET /next 0") || got.isEnded);
  assert.match(got.text, "GET /next 0");
  close();
});

test.run();
