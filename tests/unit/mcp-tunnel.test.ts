// The tunnels to the gateway, as the parent opens them over TCP.

import {
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { request } from "node:http";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  forgetTunnels,
  openTunnel,
  serveTunnels,
  type Tunnels,
} from "../../lib/gateway/tunnel.ts";
import { ownerOf } from "../../lib/std/owned.ts";

interface Context {
  root: string;
  tunnels: Tunnels;
  gateway: Server;
  told: { port: number; token: string };
}

const test = suite<Context>("mcp tunnels");

test.before.each(async (context) => {
  context.root = mkdtempSync(join(tmpdir(), "hal9000-tunnel-"));
  const socket = join(context.root, "notes.sock");
  context.gateway = createServer((client) => {
    client.on("data", (bytes) => client.write(`heard ${bytes}`));
    client.on("error", () => {});
  });
  await new Promise<void>((done) => context.gateway.listen(socket, done));
  context.tunnels = await serveTunnels(
    context.root,
    (name) => name === "notes" ? socket : undefined,
    ownerOf(context.root),
  );
  const file = join(context.root, "tunnel.json");
  context.told = JSON.parse(readFileSync(file, "utf8"));
});

test.after.each(async ({ root, tunnels, gateway }) => {
  await tunnels.close();
  gateway.close();
  rmSync(root, { recursive: true });
});

interface Opened {
  status: number | undefined;
  socket: Duplex;
}

function connect(
  { told }: Context,
  { path = "notes:80", token = told.token, scheme = "Bearer " } = {},
): Promise<Opened> {
  return new Promise((resolve, reject) => {
    const asked = request({
      host: "127.0.0.1",
      port: told.port,
      method: "CONNECT",
      path,
      agent: false,
      headers: { "proxy-authorization": scheme + token },
    });
    asked.on("connect", ({ statusCode }, socket) => {
      socket.on("error", () => {});
      resolve({ status: statusCode, socket });
    });
    asked.on("error", reject);
    asked.end();
  });
}

test("a connection with the token reaches the server's socket", async (context) => {
  const { status, socket } = await connect(context);
  assert.is(status, 200);
  socket.write("hello");
  const answer = await new Promise((resolve) => socket.once("data", resolve));
  assert.is(String(answer), "heard hello");
  socket.destroy();
});

test("a connection without the token, or to an unknown server, is refused", async (context) => {
  const { token } = context.told;
  const wrong = [...token].reverse().join("");
  const refusals: [Parameters<typeof connect>[1], number][] = [
    [{ token: wrong }, 407],
    [{ token: "" }, 407],
    [{ token: `${token}x` }, 407],
    [{ scheme: "Basic  " }, 407],
    [{ token: wrong, path: "other:80" }, 407],
    [{ path: "other:80" }, 404],
  ];
  for (const [how, expected] of refusals) {
    const { status, socket } = await connect(context, how);
    assert.is(status, expected, JSON.stringify(how));
    socket.resume();
    await new Promise((done) => socket.once("close", done));
  }
});

test("other requests than CONNECT are refused", async ({ told }) => {
  const answer = await fetch(`http://127.0.0.1:${told.port}/notes`);
  await answer.body?.cancel();
  assert.is(answer.status, 405);
  assert.is(answer.headers.get("allow"), "CONNECT");
});

test("the port and the token are in a file for the group, which is removed at the end", async ({ root, told, tunnels }) => {
  const file = join(root, "tunnel.json");
  assert.is(told.port, tunnels.port);
  assert.is(statSync(file).mode & 0o777, 0o640);
  assert.ok(told.token.length >= 40);
  const next = await serveTunnels(root, () => undefined, ownerOf(root));
  assert.is.not(JSON.parse(readFileSync(file, "utf8")).token, told.token);
  await next.close();
  assert.not.ok(existsSync(file));
  forgetTunnels(root);
});

test("closing ends open connections", async (context) => {
  const { socket } = await connect(context);
  const closed = new Promise((done) => socket.once("close", done));
  socket.resume();
  await context.tunnels.close();
  await closed;
});

test("there is no tunnel without its file, and a damaged file is an error", ({ root }) => {
  rmSync(join(root, "tunnel.json"));
  assert.is(openTunnel(root, "notes"), undefined);
  writeFileSync(join(root, "tunnel.json"), '{"port":"1"}');
  assert.throws(() => openTunnel(root, "notes"), /Expected number/);
});

test.run();
