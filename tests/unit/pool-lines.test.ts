// The protocol of the socket, with real sockets.

import { mkdtempSync, rmSync, statSync } from "node:fs";
import { createConnection, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Failure } from "../../lib/std/errors.ts";
import { Client, listen, type Listener } from "../../lib/std/socket-lines.ts";

interface Context {
  directory: string;
  socket: string;
  listener: Listener;
}

const test = suite<Context>("lines");

test.before.each(async (context) => {
  context.directory = mkdtempSync(join(tmpdir(), "hal9000-lines-"));
  context.socket = join(context.directory, "s");
  context.listener = await listen(context.socket, async (request) => {
    const { wait = 0, fail } = request as { wait?: number; fail?: string };
    await sleep(wait);
    if (fail === "foreseen") throw new Failure("busy", "It is busy");
    if (fail) throw new Error(fail);
    return { echo: request };
  }, { idleTimeoutMs: 300 });
});

test.after.each(async ({ listener, directory }) => {
  await listener.close();
  rmSync(directory, { recursive: true });
});

/** The listener's reply to raw bytes, until it closes or stops sending. */
async function send(socket: string, bytes: string): Promise<string> {
  const connection = createConnection(socket);
  connection.setEncoding("utf8");
  connection.on("error", () => {});
  let answer = "";
  const done = new Promise<void>((resolve) => {
    connection.on("close", () => resolve());
    connection.on("data", (chunk: string) => {
      answer += chunk;
      if (answer.endsWith("\n")) resolve();
    });
  });
  connection.write(bytes);
  await Promise.race([done, sleep(2000)]);
  connection.destroy();
  return answer;
}

async function serves(socket: string): Promise<void> {
  const client = new Client(socket);
  assert.equal(await client.ask({ a: 1 }, 1000), { echo: { a: 1 } });
  client.close();
}

test("the socket is accessible only to its owner", ({ socket }) => {
  assert.is(statSync(socket).mode & 0o777, 0o600);
});

test("replies to requests on one connection in order", async ({ socket }) => {
  const client = new Client(socket);
  const answers = await Promise.all([
    client.ask({ n: 1, wait: 50 }, 1000),
    client.ask({ n: 2 }, 1000),
  ]);
  assert.equal(
    answers.map((answer) => (answer as { echo: { n: number } }).echo.n),
    [1, 2],
  );
  client.close();
});

for (
  const [what, bytes, expected] of [
    ["a garbage line", "garbage\n", /not valid JSON/],
    ["an empty line", "\n", /not valid JSON/],
    ["a huge line", `${"x".repeat(70_000)}\n`, /too long/],
    ["a huge line without an end", "x".repeat(200_000), /too long/],
    ["half a line", '{"a":', /^$/],
    ["nothing", "", /^$/],
  ] as const
) {
  test(`${what} does not affect other clients`, async ({ socket }) => {
    const [answer] = await Promise.all([
      send(socket, bytes),
      serves(socket),
    ]);
    assert.match(answer, expected);
    await serves(socket);
  });
}

test("a client that disconnects early does not affect others", async ({ socket }) => {
  const connection = createConnection(socket);
  connection.write('{"wait":100}\n');
  await sleep(20);
  connection.destroy();
  await serves(socket);
  await sleep(150);
  await serves(socket);
});

test("reassembles a line that arrives in chunks", async ({ socket }) => {
  const connection = createConnection(socket);
  connection.setEncoding("utf8");
  const answer = new Promise((resolve) => connection.once("data", resolve));
  for (const piece of ['{"a"', ":", "1}", "\n"]) {
    connection.write(piece);
    await sleep(10);
  }
  assert.match(String(await answer), /"echo":\{"a":1\}/);
  connection.destroy();
});

test("transmits a Failure completely, and the message of other errors", async ({ socket }) => {
  const client = new Client(socket);
  try {
    await client.ask({ fail: "foreseen" }, 1000);
    assert.unreachable();
  } catch (error) {
    assert.instance(error, Failure);
    assert.is((error as Failure).kind, "busy");
  }
  try {
    await client.ask({ fail: "unforeseen" }, 1000);
    assert.unreachable();
  } catch (error) {
    assert.is((error as Failure).message, "unforeseen");
  }
  client.close();
});

test("fails at once if the peer ends a connection that may be half open", async ({ directory }) => {
  const path = join(directory, "ends");
  const server = createServer((peer) => peer.once("data", () => peer.end()));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const client = new Client(createConnection({ path, allowHalfOpen: true }));
  const asked = client.ask({}, 2000);
  assert.is(await asked.catch(({ code }) => code), "ECONNRESET");
  client.close();
  server.close();
});

test("times out if there is no reply", async ({ socket }) => {
  const client = new Client(socket);
  try {
    await client.ask({ wait: 500 }, 50);
    assert.unreachable();
  } catch (error) {
    assert.is((error as NodeJS.ErrnoException).code, "ETIMEDOUT");
  }
  assert.ok(client.broken);
});

test.run();
