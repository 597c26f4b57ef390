// Connections to the parent's sockets, directly and by a program in the parent.

import { mkdirSync, readFileSync } from "node:fs";
import { createConnection, createServer, type Server } from "node:net";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { warnOfOwners } from "../../lib/daemon/daemon.ts";
import type { Docker } from "../../lib/docker/docker.ts";
import { FrameReader } from "../../lib/docker/streams.ts";
import { examineSockets } from "../../lib/doctor/daemon.ts";
import { forwardPort } from "../../lib/gateway/forward.ts";
import { needsTunnels } from "../../lib/gateway/gateway-process.ts";
import {
  connectMs,
  findCrossing,
  foreignOwner,
  openSocket,
  parentAnswers,
  reachOf,
  serveParent,
  socketsCross,
} from "../../lib/instance/parent-socket.ts";
import { homePaths } from "../../lib/instance/paths.ts";
import {
  askPool,
  claim,
  claimFor,
  claimRequest,
} from "../../lib/pool/client.ts";
import { writeDesired } from "../../lib/pool/desired.ts";
import { listen, type Listener } from "../../lib/std/socket-lines.ts";
import { waitFor } from "../../lib/std/wait.ts";
import { type FakeInstance, fakeInstance } from "../helper/fake-engine.ts";
import { serveConnect } from "../helper/nsenter-stub.ts";

interface Context extends FakeInstance {
  /** The home as the parent sees it, with sockets of its own. */
  there: ReturnType<typeof homePaths>;
  parent: string;
  stop: AbortController;
  closing: (Listener | Server)[];
}

const test = suite<Context>("parent-socket");

test.before.each((context) => {
  Object.assign(context, fakeInstance());
  const { engine, root } = context;
  context.there = homePaths(join(root, "there"));
  for (const path of [context.there.ways, context.there.nsenter]) {
    mkdirSync(path, { recursive: true });
  }
  engine.socketInParent = (path) => join(context.there.home, path);
  context.parent = engine.find("fake-parent")?.id ?? "";
  context.stop = new AbortController();
  context.closing = [];
});

test.after.each(async ({ stop, closing, end }) => {
  stop.abort();
  for (const one of closing) await one.close();
  end();
});

/** A parent whose sockets do not cross. */
async function elsewhere(context: Context): Promise<void> {
  const { instance, there, stop, parent } = context;
  await serveParent({ ...instance, home: there }, stop.signal);
  assert.is(await findCrossing(instance, parent), true);
  assert.is(socketsCross(instance), false);
}

test("sockets cross if the parent answers on this machine", async ({ instance, parent, stop }) => {
  await serveParent(instance, stop.signal);
  assert.is(await findCrossing(instance, parent), true);
  assert.equal(JSON.parse(readFileSync(instance.home.crossing, "utf8")), {
    version: 1,
    container: parent,
    cross: true,
    owner: instance.owner,
    keepsOwners: true,
  });
  assert.is(connectMs(instance), 0);
  stop.abort();
  assert.is(await parentAnswers(instance), false);
  // A parent that is stopped during its start.
  await serveParent(instance, stop.signal);
  assert.is(await parentAnswers(instance), false);
});

test("sockets do not cross if the parent answers only in its container", async (context) => {
  const { instance, parent } = context;
  await elsewhere(context);
  assert.match(readFileSync(instance.home.crossing, "utf8"), parent);
  assert.is(await parentAnswers(instance), true);
  // The engine starts a program for each connection.
  assert.is(connectMs(instance), 10_000);
  // The sockets are there in the parent itself.
  const self = {} as Docker.ContainerInfo;
  assert.is(await parentAnswers({ ...instance, self }), false);
  assert.is(connectMs({ ...instance, self }), 0);
});

test("a parent that answers nowhere proves nothing", async ({ instance, parent }) => {
  assert.is(await findCrossing(instance, parent), false);
  assert.is(socketsCross(instance), undefined);
});

test("a parent that begins to listen meanwhile is not elsewhere", async ({ instance, parent, engine, stop, there }) => {
  await serveParent({ ...instance, home: there }, stop.signal);
  let serving = Promise.resolve();
  const { socketInParent } = engine;
  engine.socketInParent = (path) => {
    serving = serveParent(instance, stop.signal);
    return socketInParent(path);
  };
  assert.is(await findCrossing(instance, parent), true);
  await serving;
  assert.is(socketsCross(instance), true);
});

test("the pool is reached by the parent's container", async (context) => {
  const { instance, there, closing } = context;
  await elsewhere(context);
  const asked: unknown[] = [];
  const request = claimRequest(instance.settings, {
    directory: "/p",
    cwd: "/",
  });
  const refused = await claim(instance, request);
  assert.equal(refused, { start: "cold", reason: "the pool is not running" });
  closing.push(
    await listen(there.poolSocket, (request) => {
      asked.push((request as { op: string }).op);
      return Promise.resolve({ start: "cold", reason: "none is left" });
    }),
  );
  assert.equal(await claim(instance, request), {
    start: "cold",
    reason: "none is left",
  });
  await askPool(instance, { op: "drain" });
  assert.equal(asked, ["claim", "drain"]);
});

test("a removed parent's sockets refuse connections", async (context) => {
  const { instance, engine } = context;
  await elsewhere(context);
  engine.containers.length = 0;
  const socket = openSocket(instance, instance.home.poolSocket);
  const error = await new Promise<NodeJS.ErrnoException>((resolve) =>
    socket.on("error", resolve)
  );
  assert.is(error.code, "ECONNRESET");
});

test("a port is forwarded by the parent's container", async (context) => {
  const { instance, there, closing, stop } = context;
  await elsewhere(context);
  const container = "c".repeat(64);
  const ports = { port: 1, hostPort: 1, container };
  const failure = await forwardPort(instance, ports, stop.signal, () => {})
    .catch((error) => error);
  assert.is(failure.message, "nsenter does not answer");
  closing.push(await serveConnect(there.connectSocket, container));
  const echo = createServer((socket) => void socket.pipe(socket));
  closing.push(echo);
  const port = await portOf(echo);
  const free = createServer();
  const hostPort = await portOf(free);
  free.close();
  const forwarding = new Promise<void>((ready, fail) =>
    void forwardPort(
      instance,
      { port, hostPort, container },
      stop.signal,
      ready,
    )
      .catch(fail)
  );
  await forwarding;
  const client = createConnection({ port: hostPort, host: "127.0.0.1" });
  let heard = "";
  client.on("data", (bytes) => heard += String(bytes));
  client.write("hello");
  await waitFor(() => heard === "hello", { for: "an echo", timeoutMs: 5000 });
  client.destroy();
});

function portOf(server: Server): Promise<number> {
  return new Promise((resolve) =>
    server.listen(
      0,
      "127.0.0.1",
      () => resolve((server.address() as { port: number }).port),
    )
  );
}

test("doctor says how sockets are reached that do not cross", async (context) => {
  const { instance, there, closing } = context;
  await elsewhere(context);
  writeDesired(instance, true);
  const missing = await examineSockets(instance);
  assert.is(
    missing.says,
    `no answer: ${instance.home.connectSocket}; no answer: ${instance.home.poolSocket}`,
  );
  closing.push(await serveConnect(there.connectSocket, "c"));
  closing.push(await listen(there.poolSocket, () => Promise.resolve({})));
  assert.equal(await examineSockets(instance), {
    state: "ok",
    says: "3, by docker exec: unix sockets do not cross between this machine " +
      "and the engine's",
  });
});

test("an engine's machine that shows another owner is named if sockets fail", async (context) => {
  const { instance, there, closing, parent, engine, log, told } = context;
  assert.is(await foreignOwner(instance), undefined);
  await elsewhere(context);
  assert.is(await foreignOwner(instance), undefined);
  const other = `${there.parentSocket}2`;
  const uid = instance.owner.uid + 7;
  const answer = () => Promise.resolve({ owner: { uid, gid: 0 } });
  closing.push(await listen(other, answer));
  engine.socketInParent = (path) =>
    path.endsWith("parent.sock") ? other : undefined;
  assert.is(await findCrossing(instance, parent), true);
  const foreign = `files of uid ${instance.owner.uid} belong to uid ${uid} ` +
    "in containers: the engine's machine does not keep owners";
  assert.is(await foreignOwner(instance), foreign);
  // In the parent, owners are seen as they are there.
  const self = {} as Docker.ContainerInfo;
  assert.is(await foreignOwner({ ...instance, self }), undefined);
  const { state, says } = await examineSockets(instance);
  assert.equal([state, says], ["fail", foreign]);
  // Where each user is shown as the owner, sessions can write.
  engine.add("fake-nsenter");
  await warnOfOwners(instance, log);
  assert.equal(told, []);
  engine.run = (command) => ({ exitCode: command[0] === "test" ? 1 : 0 });
  await warnOfOwners(instance, log);
  assert.match(told.join("\n"), `Sessions cannot write: ${foreign}`);
  // A warm worker would run as that user.
  const { settings } = instance;
  const asked = { directory: "/p", cwd: "/" };
  const claimed = () => claimFor({ ...instance, settings, env: {} }, asked);
  assert.equal(await claimed(), {
    start: "cold",
    reason: "the engine's machine does not keep owners",
  });
  engine.socketInParent = (path) => join(there.home, path);
  assert.is(await findCrossing(instance, parent), true);
  assert.equal(await claimed(), {
    start: "cold",
    reason: "the pool is not running",
  });
});

test("MCP servers are reached by TCP if sockets do not cross", async (context) => {
  const { instance } = context;
  const needs = (MCP_SOCKET: "auto" | "unix" | "tcp") =>
    needsTunnels({
      ...instance,
      settings: { ...instance.settings, MCP_SOCKET },
    });
  assert.equal([needs("auto"), needs("unix"), needs("tcp")], [
    false,
    false,
    true,
  ]);
  await elsewhere(context);
  assert.equal([needs("auto"), needs("unix")], [true, false]);
});

test("commands in the parent connect directly, and others load the API late", () => {
  const home = homePaths("/h");
  assert.is(reachOf({ HAL9000_ROLE: "parent" }, home).self, true);
  assert.type(reachOf({}, home).docker, "function");
});

test("frames are read from pieces of any size", () => {
  const frame = (stream: number, text: string) =>
    Uint8Array.of(
      stream,
      0,
      0,
      0,
      0,
      0,
      0,
      text.length,
      ...text
        .split("").map((one) => one.charCodeAt(0)),
    );
  const bytes = [...frame(1, "one"), ...frame(2, "two"), ...frame(1, "")];
  for (const size of [1, 3, 8, 9, 100]) {
    const reader = new FrameReader();
    const texts = { stdout: "", stderr: "" };
    for (let at = 0; at < bytes.length; at += size) {
      const piece = Uint8Array.from(bytes.slice(at, at + size));
      for (const { stream, payload } of reader.add(piece)) {
        texts[stream] += payload.toString();
      }
    }
    assert.equal(texts, { stdout: "one", stderr: "two" }, `${size}`);
  }
});

test.run();
