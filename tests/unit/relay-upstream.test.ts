// The relay and an API that is slow, fails or sends what it should not.

import { Buffer } from "node:buffer";
import { once } from "node:events";
import { type IncomingMessage, type ServerResponse } from "node:http";
import {
  type AddressInfo,
  connect,
  createServer as createNetServer,
  type Socket,
} from "node:net";
import { createServer as createTlsServer } from "node:https";
import { setTimeout as sleep } from "node:timers/promises";
import { connect as connectTls } from "node:tls";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { within } from "../../lib/egress/proxy/world.ts";
import type { Entry } from "../../lib/relay/entry.ts";
import type { Bounds } from "../../lib/relay/relay/bounds.ts";
import { newLeaf } from "../../lib/relay/certificates.ts";
import { waitFor } from "../../lib/std/wait.ts";
import {
  authorities,
  placeholder,
  real,
  start,
  worker,
} from "../helper/relay.ts";

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

const line = (type: string, data: object) =>
  `event: ${type}\ndata: ${JSON.stringify({ type, ...data })}\n\n`;
const begun = line("message_start", {
  message: {
    model: "claude-test",
    usage: { input_tokens: 7, output_tokens: 1 },
  },
});
const spoken = line("content_block_delta", {
  index: 0,
  delta: { type: "text_delta", text: "x".repeat(300) },
});
const ended = line("message_delta", { usage: { output_tokens: 900 } });
const stream = { "content-type": "text/event-stream" };
const json = { "content-type": "application/json" };
const body = JSON.stringify({
  model: "claude-test",
  content: [{ type: "text", text: "x".repeat(3000) }],
  usage: { input_tokens: 7, output_tokens: 900 },
});

/** What is counted for a client that leaves, and what the API then sees. */
async function leave(
  { bounds, before, answer, after }: {
    bounds?: Partial<Bounds>;
    /** What the client gets before it leaves. */
    before?: string;
    answer: (response: ServerResponse) => void;
    after?: (response: ServerResponse) => void;
  },
) {
  let isGone = false;
  let sent: ServerResponse | undefined;
  const { begin, entries, reports, close } = await start({
    bounds: { leftMs: 400, ...bounds },
    answer: (_, response) => {
      sent = response;
      response.on("close", () => isGone = true);
      answer(response);
    },
  });
  const request = begin({});
  request.on("error", () => {});
  request.end("x");
  if (before !== undefined) {
    const [response] = await once(request, "response") as [IncomingMessage];
    response.on("error", () => {});
    let text = "";
    response.on("data", (chunk) => text += chunk);
    await waitFor(() => text === before, { for: "it", timeoutMs: 10_000 });
  }
  await waitFor(() => sent, { for: "the request", timeoutMs: 10_000 });
  request.destroy();
  await sleep(150);
  const wasGone = isGone;
  after?.(sent as unknown as ServerResponse);
  await waitFor(() => entries().length > 0, { for: "it", timeoutMs: 10_000 });
  await waitFor(() => isGone, { for: "the end", timeoutMs: 10_000 });
  const [{ status, input = 0, output = 0 }] = entries() as [Entry];
  let counted = 0;
  for (const report of reports) {
    if (report.kind === "usage") {
      counted += (report.event as { output?: number }).output ?? 0;
    }
  }
  assert.is(counted, output);
  close();
  return { wasGone, status, input, output };
}

test("a client that leaves a stream is charged for what it got, and the API stops", async () => {
  const found = await leave({
    before: begun + spoken,
    answer: (response) => response.writeHead(200, stream).write(begun + spoken),
  });
  assert.is(found.input, 7);
  assert.ok(found.output >= 100 && found.output < 120, String(found.output));
  // The last figures, if they come soon.
  const late = await leave({
    before: begun + spoken,
    answer: (response) => response.writeHead(200, stream).write(begun + spoken),
    after: (response) => response.end(ended),
  });
  assert.equal(late, { wasGone: false, status: 200, input: 7, output: 900 });
});

test("a client that leaves before the reply is charged for its prompt", async () => {
  const { status, input } = await leave({
    answer: () => {},
    after: (response) => response.writeHead(200, stream).write(begun),
  });
  assert.is(status, null);
  assert.is(input, 7);
  const never = await leave({
    bounds: { leftUnansweredMs: 300 },
    answer: () => {},
  });
  assert.equal(never, { wasGone: false, status: null, input: 0, output: 0 });
});

test("a client that leaves a reply that is not streamed is charged for all of it", async () => {
  const begins = body.slice(0, 2000);
  const found = await leave({
    before: begins,
    answer: (response) => response.writeHead(200, json).write(begins),
    after: (response) => response.end(body.slice(2000)),
  });
  assert.equal(found, { wasGone: false, status: 200, input: 7, output: 900 });
  const large = await leave({
    bounds: { leftBytes: 1000 },
    before: "{",
    answer: (response) => response.writeHead(200, json).write("{"),
    after: (response) => response.write("x".repeat(2000)),
  });
  assert.is(large.output, 0);
});

test("a client that leaves before it has sent its request ends it at once", async () => {
  let isGone = false;
  let isHere = false;
  const { begin, close } = await start({
    early: (request) => {
      isHere = true;
      request.on("error", () => {});
      request.on("close", () => isGone = true);
      return true;
    },
  });
  const request = begin({ headers: { "content-length": "100" } });
  request.on("error", () => {});
  request.write("x");
  await waitFor(() => isHere, { for: "the request", timeoutMs: 10_000 });
  request.destroy();
  await waitFor(() => isGone, { for: "its end", timeoutMs: 10_000 });
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
  socket.destroy();
  valve.close();
  close();
});

test("an API that reads slowly or is not connected slows the worker down", async () => {
  // The second one has no TLS, so it is never connected.
  for (const protocol of ["http", "https"]) {
    const sockets: Socket[] = [];
    const api = createNetServer((socket) => {
      sockets.push(socket);
      socket.on("error", () => {});
      socket.pause();
    }).listen(0, "127.0.0.1");
    await once(api, "listening");
    const { port } = api.address() as AddressInfo;
    const { open, close } = await start({
      grant: { baseUrl: `${protocol}://127.0.0.1:${port}` },
    });
    const bytes = 128 * 1024 ** 2;
    const chunk = Buffer.alloc(64 * 1024);
    let written = 0;
    const socket = open(worker);
    socket.on("error", () => {});
    socket.write([
      "POST /v1/messages HTTP/1.1",
      "Host: api.anthropic.com",
      `X-Api-Key: ${placeholder}`,
      `Content-Length: ${bytes}`,
      "",
      "",
    ].join("\r\n"));
    const send = () => {
      while (written < bytes && !socket.destroyed) {
        written += chunk.length;
        if (!socket.write(chunk)) return void socket.once("drain", send);
      }
    };
    send();
    await sleep(1000);
    assert.ok(written < bytes / 4, `${protocol}: ${written} bytes`);
    close();
    // The relay reads nothing from the worker, and so does not see that it has left.
    for (const socket of sockets) socket.destroy();
    api.close();
  }
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

test("an API that falls silent is given up, before its reply and in the middle of it", async () => {
  const { begin, ask, entries, close } = await start({
    bounds: { idleMs: 1000, headMs: 1000 },
    answer: (request, response) => {
      if (!request.headers["x-begin"]) return;
      response.writeHead(200, stream).write(begun);
    },
  });
  const asking = ask({ body: "x" });
  const { status, text } = await within(asking, 20_000, "no reply");
  assert.is(status, 502);
  assert.match(JSON.parse(text).error.message, "cannot reach the API");
  assert.match(entries()[0]?.reason ?? "", "it does not answer");
  const request = begin({ headers: { "x-begin": "1" } });
  request.end("x");
  const [response] = await once(request, "response") as [IncomingMessage];
  let failed = false;
  try {
    for await (const _ of response);
  } catch {
    failed = true;
  }
  assert.ok(failed);
  await waitFor(() => entries().length === 2, { for: "it", timeoutMs: 10_000 });
  assert.is(entries()[1]?.input, 7);
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

test("the API is reached through the caller's proxy, and trusted by the caller's certificates", async () => {
  const api = createTlsServer(
    await newLeaf(authorities),
    (request, response) => response.end(request.headers["x-api-key"]),
  ).listen(0, "127.0.0.1");
  await once(api, "listening");
  const asked: string[] = [];
  const proxy = createNetServer((client) => {
    client.on("error", () => {});
    client.once("data", (head) => {
      asked.push(String(head));
      const server = connect((api.address() as AddressInfo).port, "127.0.0.1");
      server.on("error", () => {});
      client.write("HTTP/1.1 200 OK\r\n\r\n");
      client.pipe(server).pipe(client);
    });
  }).listen(0, "127.0.0.1");
  await once(proxy, "listening");
  const { port } = proxy.address() as AddressInfo;
  const grant = (ca: string | null) => ({
    baseUrl: null,
    upstream: {
      http: null,
      https: `http://me:planted@127.0.0.1:${port}`,
      noProxy: "",
      ca,
    },
  });
  const trusting = await start({ grant: grant(authorities[0]?.cert ?? null) });
  const { status, text } = await trusting.ask({ body: "x" });
  assert.equal([status, text], [200, real]);
  assert.match(asked[0] ?? "", /^CONNECT api\.anthropic\.com:443 /);
  const password = Buffer.from("me:planted").toString("base64");
  assert.match(asked[0] ?? "", `Basic ${password}`);
  trusting.close();
  const other = await start({ grant: grant(null) });
  assert.is((await other.ask({ body: "x" })).status, 502);
  other.close();
  proxy.close();
  api.close();
});

test.run();
