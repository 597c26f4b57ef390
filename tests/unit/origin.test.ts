import { Buffer } from "node:buffer";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createConnection, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { originHeader, readOrigin } from "../../lib/std/origin.ts";

const test = suite("origin");
const id = "0123456789abcdef".repeat(4);

/** What a service reads of a connection on which `chunks` are written. */
async function served(
  chunks: (string | Uint8Array)[],
): Promise<{ origin?: string | null; error?: string; rest: string }> {
  const directory = mkdtempSync(join(tmpdir(), "hal9000-origin-"));
  const path = join(directory, "socket");
  const server = createServer();
  server.listen(path);
  await once(server, "listening");
  const connected = once(server, "connection") as Promise<[Socket]>;
  const client = createConnection(path);
  client.on("error", () => {});
  const [socket] = await connected;
  socket.on("error", () => {});
  const origin = readOrigin(socket).then(
    (origin) => ({ origin }),
    (error: Error) => ({ error: error.message }),
  );
  for (const chunk of chunks) {
    client.write(chunk);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  client.end();
  const found = await origin;
  let rest = "";
  if (!socket.destroyed) { for await (const chunk of socket) rest += chunk; }
  server.close();
  rmSync(directory, { recursive: true });
  return { ...found, rest };
}

test("the header precedes what the client sends, in pieces or at once", async () => {
  const header = originHeader(id);
  const whole = await served([Buffer.concat([header, Buffer.from("GET")])]);
  assert.equal(whole, { origin: id, rest: "GET" });
  const pieces = [header.subarray(0, 5), header.subarray(5), "GET"];
  assert.equal(await served(pieces), { origin: id, rest: "GET" });
});

test("a connection of the shared network has a header without an id", async () => {
  const header = originHeader(null);
  const whole = await served([Buffer.concat([header, Buffer.from("GET")])]);
  assert.equal(whole, { origin: null, rest: "GET" });
  const pieces = [header.subarray(0, 15), header.subarray(15), "GET"];
  assert.equal(await served(pieces), { origin: null, rest: "GET" });
});

test("a connection without the header is refused", async () => {
  const wrong = [
    [`GET / HTTP/1.1\r\n${"x: y\r\n".repeat(30)}\r\n`],
    [originHeader(id).subarray(0, -1)],
    [originHeader(null).subarray(0, -1)],
    [originHeader(id.toUpperCase())],
    [],
  ];
  for (const chunks of wrong) {
    const { error, rest } = await served(chunks);
    assert.is(error, "the connection does not begin with its origin");
    assert.is(rest, "");
  }
});

test.run();
