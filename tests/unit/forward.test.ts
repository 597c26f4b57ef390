// Forwarding of a worker's port to the host, from listener to listener.

import { mkdirSync, statSync } from "node:fs";
import { createConnection, createServer, type Server } from "node:net";
import { dirname } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  forwardAnswers,
  forwardPort,
  isPort,
  serveForward,
} from "../../lib/gateway/forward.ts";
import type { Failure } from "../../lib/std/errors.ts";
import { type FakeInstance, fakeInstance } from "../helper/fake-engine.ts";

interface Context extends FakeInstance {
  servers: Server[];
}

const test = suite<Context>("forward");

test.before.each((context) => {
  Object.assign(context, fakeInstance());
  context.servers = [];
  const { forwardSocket } = context.instance.home;
  mkdirSync(dirname(forwardSocket), { recursive: true });
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

test("the first line chooses the port, and the rest is passed on", async (context) => {
  const path = context.instance.home.forwardSocket;
  const port = await serveLoud(context);
  context.servers.push(await serveForward(path));
  assert.is(statSync(path).mode & 0o777, 0o660);
  assert.is(await send({ path }, `${port}\nhello`), "HELLO");
  for (const line of ["0\n", "65536\n", "x\n", "\n", "123456789"]) {
    assert.is(await send({ path }, line), "", line);
  }
});

test("a socket of a killed forwarder is replaced", async (context) => {
  const path = context.instance.home.forwardSocket;
  context.servers.push(await serveForward(path));
  context.servers.push(await serveForward(path));
  assert.is(await forwardAnswers(context.instance), true);
});

test("the forwarder answers only while it runs", async (context) => {
  assert.is(await forwardAnswers(context.instance), false);
  const server = await serveForward(context.instance.home.forwardSocket);
  assert.is(await forwardAnswers(context.instance), true);
  server.close();
  assert.is(await forwardAnswers(context.instance), false);
});

test("a port of the host leads to the worker's port until it is stopped", async (context) => {
  const { instance } = context;
  const port = await serveLoud(context);
  context.servers.push(await serveForward(instance.home.forwardSocket));
  // A port that is free now.
  const probe = createServer();
  await new Promise<void>((done) => probe.listen(0, "127.0.0.1", done));
  const hostPort = (probe.address() as { port: number }).port;
  const taken = await forwardPort(
    instance,
    { port, hostPort },
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
    forwarding = forwardPort(instance, { port, hostPort }, stop.signal, ready);
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
