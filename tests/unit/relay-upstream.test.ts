// The relay and an API that is slow, fails or sends what it should not.

import { Buffer } from "node:buffer";
import { once } from "node:events";
import { type IncomingMessage, type ServerResponse } from "node:http";
import {
  type AddressInfo,
  createServer as createNetServer,
  type Socket,
} from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { connect as connectTls } from "node:tls";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { waitFor } from "../../lib/std/wait.ts";
import { authorities, placeholder, start, worker } from "../helper/relay.ts";

const test = suite("relay-upstream");

test("a stream arrives as it is sent, and a client that leaves ends it", async () => {
  let gone = 0;
  let sent: ServerResponse | undefined;
  const { begin, close } = await start({
    answer: (_, response) => {
      sent = response;
      response.on("close", () => gone++);
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write("event: one\n\n");
    },
  });
  const request = begin({});
  request.end("x");
  const [response] = await once(request, "response") as [IncomingMessage];
  const [first] = await once(response, "data");
  assert.is(String(first), "event: one\n\n");
  sent?.write("event: two\n\n");
  const [second] = await once(response, "data");
  assert.is(String(second), "event: two\n\n");
  assert.is(gone, 0);
  request.destroy();
  await waitFor(() => gone === 1, { for: "the end", timeoutMs: 10_000 });
  close();
});

test("the head of a reply does not wait for its body", async () => {
  let answered: ServerResponse | undefined;
  const { begin, close } = await start({
    answer: (_, response) => {
      answered = response;
      response.writeHead(200).flushHeaders();
    },
  });
  const request = begin({});
  request.end("x");
  const late = sleep(2000, undefined, { ref: false });
  const [head] = await Promise.race([
    once(request, "response"),
    late.then(() => []),
  ]);
  assert.ok(head, "no head");
  answered?.end();
  close();
});

test("a slow reader slows the API down", async () => {
  const chunks = 1600; // 100 MiB
  let before = -1;
  let isOpen = false;
  let written = 0;
  const { openRaw, close } = await start({
    answer: async (_, response) => {
      const chunk = Buffer.alloc(64 * 1024);
      response.writeHead(200, { connection: "close" });
      while (!response.destroyed && written < chunks) {
        written++;
        if (!response.write(chunk)) await once(response, "drain");
      }
      response.end();
    },
  });
  // Deno's TLS client reads all there is, so something before it has to stop reading.
  const raw = openRaw(worker);
  let read = 0;
  const valve = createNetServer((client) => {
    client.pipe(raw);
    raw.on("data", (chunk) => {
      read += chunk.length;
      client.write(chunk);
      if (read > 1024 ** 2 && !isOpen) raw.pause();
    });
    raw.on("end", () => client.end());
  }).listen(0, "127.0.0.1");
  await once(valve, "listening");
  const { port } = valve.address() as AddressInfo;
  const socket = connectTls({
    port,
    host: "127.0.0.1",
    servername: "api.anthropic.com",
    ca: authorities.map(({ cert }) => cert),
  });
  let bytes = 0;
  socket.on("data", (chunk) => bytes += chunk.length);
  socket.write([
    "POST /v1/messages HTTP/1.1",
    "Host: api.anthropic.com",
    `X-Api-Key: ${placeholder}`,
    "Content-Length: 0",
    "Connection: close",
    "",
    "",
  ].join("\r\n"));
  await waitFor(() => {
    const isStill = written > 0 && written === before;
    before = written;
    return isStill;
  }, { for: "the API to wait", timeoutMs: 5000, everyMs: 300 });
  assert.ok(written < chunks / 2, `${written} chunks of 64 KiB`);
  isOpen = true;
  raw.resume();
  await waitFor(() => bytes > chunks * 64 * 1024, {
    for: "the whole reply",
    timeoutMs: 10_000,
  });
  valve.close();
  close();
});

test("an API that is down or sends garbage gives an error in the API's form", async () => {
  const raw = (act: (socket: Socket) => void) =>
    createNetServer((socket) => {
      socket.on("error", () => {});
      socket.once("data", () => act(socket));
    }).listen(0, "127.0.0.1");
  const servers = {
    garbage: raw((socket) => socket.end("\0\x01\x02 garbage\r\n\r\n")),
    closing: raw((socket) => socket.destroy()),
    "huge head": raw((socket) =>
      socket.write(`HTTP/1.1 200 OK\r\nX: ${"x".repeat(1024 ** 2)}\r\n\r\n`)
    ),
    informing: raw((socket) =>
      socket.write("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100))
    ),
    "upgrading by surprise": raw((socket) =>
      socket.end(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
      )
    ),
    upgrading: raw((socket) =>
      socket.end("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
    ),
  };
  await sleep(20); // until they listen
  for (const [what, server] of Object.entries(servers)) {
    const { port } = server.address() as AddressInfo;
    const { ask, entries, close } = await start({
      grant: { baseUrl: `http://127.0.0.1:${port}` },
    });
    const { status, text } = await ask({ body: "x" });
    assert.is(status, 502, what);
    assert.is(JSON.parse(text).type, "error");
    // Details may name the caller's gateway or proxy.
    const { message } = JSON.parse(text).error;
    assert.match(
      message,
      /^HAL-9000's relay cannot reach the API(: [A-Z_]+)?$/,
    );
    await waitFor(() => entries().length > 0, { for: what, timeoutMs: 10_000 });
    assert.match(entries()[0]?.reason ?? "", /^[^:]+: ./);
    server.close();
    close();
  }
  const { ask, close } = await start({
    grant: { baseUrl: "http://127.0.0.1:1" },
  });
  const { status, text } = await ask({ body: "x" });
  assert.is(status, 502);
  assert.match(text, "ECONNREFUSED");
  close();
});

test("a reply that is cut off is cut off for the client, and others go on", async () => {
  const { begin, ask, close } = await start({
    answer: (request, response) => {
      if (request.headers["x-cut"] === undefined) {
        return void response.end("ok");
      }
      response.writeHead(200);
      response.write("some"); // in chunks
      setTimeout(() => response.socket?.destroy(), 50);
    },
  });
  const request = begin({ headers: { "x-cut": "1" } });
  request.on("error", () => {});
  request.end("x");
  const [response] = await once(request, "response") as [IncomingMessage];
  let text = "";
  let failed = false;
  try {
    for await (const chunk of response) text += chunk;
  } catch {
    failed = true;
  }
  assert.is(text, "some");
  assert.ok(failed);
  assert.is((await ask({})).text, "ok");
  close();
});

test.run();
