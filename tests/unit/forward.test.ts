// Forwarding of a worker's port to the host, from listener to listener.

import { mkdirSync } from "node:fs";
import { createConnection, createServer, type Server } from "node:net";
import { dirname } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  forwardAnswers,
  forwardPort,
  isPort,
} from "../../lib/gateway/forward.ts";
import type { Failure } from "../../lib/std/errors.ts";
import { type FakeInstance, fakeInstance } from "../helper/fake-engine.ts";
import { serveConnect } from "../helper/nsenter-stub.ts";

interface Context extends FakeInstance {
  servers: Server[];
}

const test = suite<Context>("forward");

const container = "0123456789abcdef".repeat(4);

test.before.each((context) => {
  Object.assign(context, fakeInstance());
  context.servers = [];
  const { connectSocket } = context.instance.home;
  mkdirSync(dirname(connectSocket), { recursive: true });
});
test.after.each(({ servers, end }) => {
  for (const server of servers) server.close();
  end();
});

/** A server that answers each line in capitals; returns its port. */
async function serveLoud({ servers }: Context): Promise<number> {
  const server = createServer((client) => {
    client.on("error", () => {});
    client.on("data", (bytes) => client.end(String(bytes).toUpperCase()));
  });
  servers.push(server);
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return (server.address() as { port: number }).port;
}

/** What is received for some text, up to the end of the connection. */
function send(
  to: { path: string } | { port: number; host: string },
  text: string,
): Promise<string> {
  return new Promise((resolve) => {
    let heard = "";
    const socket = createConnection(to as { path: string });
    socket.on("data", (bytes) => heard += bytes);
    socket.on("error", () => {});
    socket.on("close", () => resolve(heard));
    socket.write(text);
  });
}

test("a port is a whole number from 1 to 65535", () => {
  for (const port of [1, 80, 65535]) assert.is(isPort(port), true, `${port}`);
  for (const port of [0, -1, 65536, 1.5, NaN]) {
    assert.is(isPort(port), false, `${port}`);
  }
});

test("nsenter answers only while it runs", async ({ instance, servers }) => {
  assert.is(await forwardAnswers(instance), false);
  const lines: string[] = [];
  const path = instance.home.connectSocket;
  const server = await serveConnect(path, container, lines);
  servers.push(server);
  assert.is(await forwardAnswers(instance), true);
  // A line that names no container.
  assert.equal(lines, ["none 0"]);
  server.close();
  assert.is(await forwardAnswers(instance), false);
});

test("a port of the host leads to the worker's port until it is stopped", async (context) => {
  const { instance } = context;
  const port = await serveLoud(context);
  const path = instance.home.connectSocket;
  context.servers.push(await serveConnect(path, container));
  // A port that is free now.
  const probe = createServer();
  await new Promise<void>((done) => probe.listen(0, "127.0.0.1", done));
  const hostPort = (probe.address() as { port: number }).port;
  const taken = await forwardPort(
    instance,
    { port, hostPort, container },
    new AbortController().signal,
    () => {},
  ).then(() => undefined, (error: Failure) => error);
  assert.equal([taken?.kind, taken?.message, taken?.hint], [
    "busy",
    `Cannot listen on 127.0.0.1:${hostPort}: EADDRINUSE`,
    "Choose another: claudy ports open PORT HOST_PORT",
  ]);
  await new Promise((done) => probe.close(done));
  const stop = new AbortController();
  let forwarding: Promise<void> | undefined;
  await new Promise<void>((ready) => {
    forwarding = forwardPort(
      instance,
      { port, hostPort, container },
      stop.signal,
      ready,
    );
  });
  const to = { port: hostPort, host: "127.0.0.1" };
  assert.is(await send(to, "hello"), "HELLO");
  const open = createConnection(to);
  open.on("error", () => {});
  await new Promise((done) => open.once("connect", done));
  const closed = new Promise((done) => open.once("close", done));
  stop.abort();
  await forwarding;
  await closed;
  assert.is(await send(to, "hello"), "");
});

test.run();
