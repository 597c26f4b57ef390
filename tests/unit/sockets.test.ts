// Ports and sockets, with real ones on this machine.

import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { type AddressInfo, createConnection, createServer } from "node:net";
import { createServer as createHttp } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { greet } from "../../lib/gateway/greet.ts";
import { createOnce } from "../../lib/instance/container.ts";
import { bindPort, closePort } from "../../lib/net/bind-call.ts";
import { parsePublished } from "../../lib/daemon/specs.ts";
import { Client } from "../../lib/std/socket-lines.ts";
import { fakeInstance } from "../helper/fake-engine.ts";

const test = suite<{ root: string }>("sockets");

test.before.each((context) => {
  context.root = mkdtempSync(join(tmpdir(), "hal9000-sockets-"));
});
test.after.each(({ root }) => rmSync(root, { recursive: true }));

/** Whether a port is free. */
async function isFree(host: string, port: number): Promise<boolean> {
  const server = createServer();
  const free = new Promise<boolean>((resolve) => {
    server.once("listening", () => resolve(true));
    server.once("error", () => resolve(false));
  });
  server.listen(port, host);
  const result = await free;
  if (result) server.close();
  return result;
}

for (const address of ["127.0.0.1", "::1"] as const) {
  test(`a port held at ${address} is unavailable until it is released`, async () => {
    const bound = bindPort(address, 0);
    if ("code" in bound) return; // the machine does not have this address
    closePort(bound.fd);
    let port = 38_471;
    while (!await isFree(address, port)) port++;
    const held = bindPort(address, port);
    if ("code" in held) throw new Error(held.code);
    assert.not(await isFree(address, port));
    const refused = createConnection(port, address);
    // The port is bound, but nothing listens.
    await assert.ok(
      await once(refused, "connect").then(() => false, () => true),
    );
    closePort(held.fd);
    assert.ok(await isFree(address, port));
  });
}

test("a port in use cannot be held, and no descriptor stays open", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const before = readdirSync("/proc/self/fd").length;
  assert.equal(bindPort("127.0.0.1", port), { code: "EADDRINUSE" });
  assert.is(readdirSync("/proc/self/fd").length, before);
  server.close();
});

test("a socket without a listener is a catchable error", async ({ root }) => {
  const client = new Client(join(root, "gone"));
  const code = await client.ask({}, 1000).then(
    () => "",
    (error) => error.code,
  );
  assert.is(code, "ENOENT");
  assert.ok(client.broken);
});

test("greet() returns an MCP server's name and version, or why it failed", async () => {
  let answer: unknown = {};
  const methods: string[] = [];
  const server = createHttp((request, response) => {
    methods.push(request.method ?? "");
    response.setHeader("mcp-session-id", "1");
    response.end(JSON.stringify(answer));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const place = { host: "127.0.0.1", port };
  const connect = () => createConnection(place);
  const says = () => greet(connect).catch(({ message }) => message);
  assert.is(await says(), "not an MCP server");
  answer = { result: { serverInfo: { name: "x", version: "1" } } };
  assert.is(await says(), "x 1");
  // The session for the greeting is closed.
  assert.is(methods.at(-1), "DELETE");
  answer = { error: { message: "no" } };
  assert.is(await says(), "no");
  server.close();
});

test("parsePublished() accepts ports from 1 to 65535", () => {
  assert.equal(parsePublished("1:65535"), {
    address: "127.0.0.1",
    hostPort: "1",
    containerPort: "65535",
  });
  assert.is(parsePublished("0.0.0.0:1:1").address, "0.0.0.0");
  for (const text of ["0:1", "1:0", "65536:1", "1:65536"]) {
    assert.throws(() => parsePublished(text));
  }
});

test("two concurrent createOnce() calls for a container both succeed", async () => {
  const { engine, instance, end } = fakeInstance();
  const create = () =>
    createOnce(instance.docker, "once", { Image: "repo:parent" });
  await Promise.all([create(), create()]);
  assert.ok(engine.find("once"));
  engine.refuses.set("create twice", 500);
  const failure = await createOnce(instance.docker, "twice", {
    Image: "repo:parent",
  }).then(() => ({ message: "" }), (error: Error) => error);
  assert.is(failure.message, "Cannot create twice: refused");
  end();
});

test.run();
