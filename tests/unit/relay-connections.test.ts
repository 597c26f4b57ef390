// The relay's connections to the API: none is left open, and few are made ahead.

import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, createServer, Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { directNetwork } from "../../lib/egress/upstream.ts";
import { defaultBounds } from "../../lib/relay/relay/bounds.ts";
import { Gate } from "../../lib/std/tls-gate.ts";
import { Spares } from "../../lib/relay/relay/spares.ts";
import { Upstreams } from "../../lib/relay/relay/upstream.ts";
import { waitFor } from "../../lib/std/wait.ts";
import { authorities, grantOf, leaf } from "../helper/relay.ts";

const test = suite("relay-connections");

test("a gate whose connection fails does not end the process", async () => {
  const socket = new Socket();
  const gate = new Gate(socket);
  socket.destroy(new Error("reset"));
  await waitFor(() => gate.closed, { for: "its end", timeoutMs: 5000 });
  await sleep(10);
});

test("only a few connections are made ahead, however many requests begin at once", async () => {
  let made = 0;
  const spares = new Spares<{ socket: Socket }>();
  const sockets: Socket[] = [];
  const connect = async () => {
    made++;
    await sleep(50);
    const socket = new Socket();
    sockets.push(socket);
    return { socket };
  };
  const taken = await Promise.all(
    Array.from({ length: 40 }, () => spares.take("a", connect)),
  );
  assert.is(made, 40);
  await sleep(500);
  assert.is(made, 72);
  // Which are used, one by one.
  const more = await Promise.all(
    [1, 2, 3].map(() => spares.take("a", connect)),
  );
  assert.is(new Set([...taken, ...more]).size, 43);
  assert.is(made, 72);
  await sleep(500);
  assert.is(made, 75);
  // Else spares are renewed for ever.
  for (const socket of sockets) socket.destroy();
});

test("while a request goes on, a spare connection is renewed before a server closes it", async () => {
  const made: Socket[] = [];
  const spares = new Spares<{ socket: Socket }>(100);
  const connect = () => {
    const socket = new Socket();
    made.push(socket);
    return Promise.resolve({ socket });
  };
  const open = () => made.filter((socket) => !socket.destroyed).length;
  const { socket } = await spares.take("a", connect);
  await waitFor(() => made.length >= 4, { for: "some", timeoutMs: 5000 });
  assert.is(open(), 2);
  socket.destroy();
  await waitFor(() => open() === 0, { for: "the last", timeoutMs: 5000 });
  const count = made.length;
  await sleep(400);
  assert.is(made.length, count);
});

test("a spare connection that was closed is not used", async () => {
  const made: Socket[] = [];
  const spares = new Spares<{ socket: Socket }>();
  const connect = () => {
    const socket = new Socket();
    made.push(socket);
    return Promise.resolve({ socket });
  };
  await spares.take("a", connect);
  await waitFor(() => made.length === 2, { for: "a spare", timeoutMs: 5000 });
  made[1]?.destroy();
  await sleep(20);
  const { socket } = await spares.take("a", connect);
  assert.is(socket, made[2]);
  for (const socket of made) socket.destroy();
});

test("no connection is left of a request that cannot begin or is given up", async () => {
  let open = 0;
  const server = createServer((socket) => {
    open++;
    socket.on("error", () => {});
    socket.on("data", () => {});
    socket.on("close", () => open--);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const grant = grantOf({ baseUrl: `http://127.0.0.1:${port}` });
  const upstreams = new Upstreams(defaultBounds);
  const outgoing = {
    method: "POST",
    path: "/v1/messages",
    headers: ["a", "b"],
  };
  // A spare one stays for some seconds.
  const isClosed = () => open <= 1;
  for (let count = 0; count < 3; count++) {
    let failed = false;
    await upstreams.begin(grant, { ...outgoing, path: "/a b" })
      .catch(() => failed = true);
    assert.ok(failed);
  }
  await waitFor(isClosed, { for: "the end of them", timeoutMs: 5000 });
  for (let count = 0; count < 3; count++) {
    const { request } = await upstreams.begin(grant, outgoing);
    request.on("error", () => {});
    request.destroy();
  }
  await waitFor(isClosed, { for: "the end of these", timeoutMs: 5000 });
  server.close();
});

test("the socket of a request closes, however it ends, also with TLS", async () => {
  const server = createTlsServer(leaf, (request, response) => {
    response.write("some");
    request.resume();
    if (request.url === "/whole") response.end();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const ca = authorities.map(({ cert }) => cert).join("\n");
  const grant = grantOf({
    baseUrl: `https://127.0.0.1:${port}`,
    upstream: { ...directNetwork.upstream, ca },
  });
  const upstreams = new Upstreams(defaultBounds);
  for (const end of ["at once", "early", "in the middle", "whole"]) {
    const path = end === "whole" ? "/whole" : "/part";
    const { request } = await upstreams.begin(grant, {
      method: "POST",
      path,
      headers: ["content-length", "1"],
    });
    request.on("error", () => {});
    const { agent } = request as unknown as {
      agent: { createConnection(): Socket };
    };
    const socket = agent.createConnection();
    const replied = once(request, "response");
    if (end === "early") await sleep(50);
    if (end === "at once" || end === "early") request.destroy();
    else {
      request.end("x");
      const [response] = await replied as [IncomingMessage];
      response.on("error", () => {});
      response.resume();
      if (end === "in the middle") request.destroy();
    }
    replied.catch(() => {});
    await waitFor(() => socket.closed, { for: end, timeoutMs: 5000 });
  }
  server.closeAllConnections();
  server.close();
});

test.run();
