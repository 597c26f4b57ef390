import { createConnection } from "node:net";
import { EventEmitter, once } from "node:events";
import { mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import {
  createServer,
  type IncomingHttpHeaders,
  request as httpRequest,
} from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Connections } from "../../lib/gateway/connections.ts";
import { greet } from "../../lib/gateway/greet.ts";
import {
  anonymous,
  tokenHeader,
  tokenKey,
  workerOf,
  workerToken,
} from "../../lib/mcp/identity.ts";
import { Inlet, Refused } from "../../lib/gateway/inlet.ts";
import { slotFor } from "../../lib/gateway/slots.ts";
import { Upstream } from "../../lib/gateway/upstream.ts";
import { findExcess } from "../../lib/gateway/watch.ts";
import { ownerOf } from "../../lib/std/owned.ts";
import { homePaths } from "../../lib/instance/paths.ts";
import { serve } from "../helper/mcp-served.ts";

const test = suite("mcp-workers");

test("workerOf() identifies a worker by its token, and rejects other tokens", () => {
  const token = workerToken("key", "claude/claudy-app-12345678");
  assert.is(workerOf("key", token), "claude/claudy-app-12345678");
  const [name, digest = ""] = token.split(".");
  const [other] = workerToken("another key", "claude/other").split(".");
  for (
    const wrong of [
      undefined,
      null,
      "",
      ".",
      name,
      `${name}.`,
      `${other}.${digest}`,
      `${token}x`,
      `${token}.x`,
      `${name}.${digest.toLowerCase()}`,
      workerToken("another key", "claude/claudy-app-12345678"),
    ]
  ) assert.is(workerOf("key", wrong), anonymous, `${wrong}`);
});

test("tokenKey() creates a single key that only the owner can read", () => {
  const home = mkdtempSync(join(tmpdir(), "hal9000-mcp-"));
  const paths = { ...homePaths(home), mcpKey: join(home, "key") };
  try {
    const key = tokenKey(paths, ownerOf(home));
    assert.is(key.length, 43);
    assert.is(tokenKey(paths, ownerOf(home)), key);
    assert.is(statSync(paths.mcpKey).mode & 0o777, 0o600);
    assert.equal(readdirSync(home), ["key"]);
  } finally {
    rmSync(home, { recursive: true });
  }
});

/** Holders of slots: "a" is busy, "A" idle. */
function holders(text: string) {
  return [...text].map((letter, at) => ({
    at,
    worker: letter.toLowerCase(),
    isIdle: () => letter !== letter.toLowerCase(),
  }));
}

const limits = { max: 6, maxOfWorker: 4, ownIdleMs: 1, idleMs: 1 };
const places: [held: string, worker: string, expected: string | number][] = [
  ["", "a", "free"],
  ["aaa", "a", "free"],
  ["aaaa", "a", "refused"],
  ["aaAA", "a", 2],
  ["aaaabb", "a", "refused"],
  // All slots are in use: take one from the worker with the most.
  ["aaaabb", "c", 0],
  ["baAabb", "c", 2],
  ["aaabbb", "c", 0],
  ["aaaabB", "c", 5],
  // No worker has enough slots to lose one.
  ["aabbcc", "a", "refused"],
  ["aabbcc", "d", 0],
  ["abcdef", "g", "refused"],
];

for (const [held, worker, expected] of places) {
  test(`slotFor() ${worker} where ${held || "nobody"} has places: ${expected}`, () => {
    const { isFree, instead } = slotFor(worker, holders(held), limits);
    const found = instead ? instead.at : isFree ? "free" : "refused";
    assert.is(found, expected);
  });
}

class FakeSocket extends EventEmitter {
  destroyed = false;
  setTimeout() {}
  destroy() {
    this.destroyed = true;
    this.emit("close");
  }
}

function connected(connections: Connections, count: number) {
  return Array.from({ length: count }, () => {
    const socket = new FakeSocket() as unknown as Socket;
    connections.add(socket);
    return socket;
  });
}
const open = (sockets: Socket[]) =>
  sockets.filter(({ destroyed }) => !destroyed).length;

test("closes silent connections for new ones, but no connection of a worker", () => {
  const connections = new Connections();
  const known = connected(connections, 60);
  for (const socket of known) assert.ok(connections.noteRequest(socket, "a"));
  const silent = connected(connections, 2000);
  assert.is(open(known), 60);
  assert.is(open(silent), 768);
  assert.not(silent.at(-1)?.destroyed);
  // Connections with requests but no token are not protected, but closed last.
  const [asking] = silent.slice(-768) as [Socket];
  connections.noteRequest(asking, anonymous);
  connected(connections, 767);
  assert.not(asking.destroyed);
  connected(connections, 2000);
  assert.not(asking.destroyed);
  connections.close();
});

test("limits a worker to 64 connections without blocking others", () => {
  const connections = new Connections();
  const mine = connected(connections, 64);
  const answered = mine.map((socket) => connections.noteRequest(socket, "a"));
  const [next] = connected(connections, 1) as [Socket];
  assert.is(connections.noteRequest(next, "a"), undefined);
  assert.ok(connections.noteRequest(next, "b"));
  answered[7]?.();
  const [another] = connected(connections, 1) as [Socket];
  assert.ok(connections.noteRequest(another, "a"));
  assert.ok(mine[7]?.destroyed);
  assert.is(open(mine), 63);
  connections.close();
});

/** A body that stays open until it is ended. */
function body(megabytes: number) {
  let end = () => {};
  const stream = new ReadableStream({
    start: (controller) => {
      controller.enqueue(new Uint8Array(megabytes * 1e6).fill(32));
      end = () => {
        controller.enqueue(new TextEncoder().encode("{}"));
        controller.close();
      };
    },
  });
  const request = new Request("http://gateway/mcp", {
    method: "POST",
    body: stream,
    ...{ duplex: "half" },
  });
  return { request, end: () => end() };
}

test("unfinished requests of a worker do not block other workers", async () => {
  const inlet = new Inlet();
  const sent = (worker: string, megabytes: number) => {
    const { request, end } = body(megabytes);
    const answer = inlet.read(request, worker).then(
      ({ release }) => {
        release();
        return 200;
      },
      (error) => error instanceof Refused ? error.status : error,
    );
    return { end, answer };
  };
  const held = [sent("a", 18), sent("a", 20), sent("b", 20)];
  await sleep(50);
  // More than the limit of a worker.
  assert.is(await sent("a", 5).answer, 503);
  const other = sent("c", 15);
  await sleep(50);
  // The largest request of the worker with the most data was refused.
  assert.is(await held[1]?.answer, 503);
  for (const one of [held[0], held[2], other]) one?.end();
  assert.equal(
    await Promise.all([held[0], held[2], other].map((one) => one?.answer)),
    [200, 200, 200],
  );
});

const row = (pid: number, parent: number, group: number, megabytes = 1) => ({
  pid,
  parent,
  group,
  memoryBytes: megabytes * 1024 ** 2,
});
const watched = (pid: number, limitGroup: string) => ({
  pid,
  limitGroup,
  maxMemoryBytes: 100 * 1024 ** 2,
  maxProcesses: 5,
  end: () => {},
});

test("findExcess() sums the processes of a worker with their children", () => {
  const found = (rows: ReturnType<typeof row>[]) =>
    findExcess(rows, [watched(10, "x a"), watched(20, "x a"), watched(30, "x")])
      .map(({ watched, reason, pids }) => [watched.pid, reason, ...pids]);
  const quiet = [
    row(10, 1, 10),
    row(20, 1, 20),
    row(30, 1, 30),
    row(9, 1, 9, 900),
  ];
  assert.equal(found(quiet), []);
  // A child that has left the process group, and its child.
  const left = [...quiet, row(21, 20, 21, 60), row(22, 21, 21, 60)];
  assert.equal(found(left), [[
    20,
    'used 122 MiB of memory; "memory" allows 100 MiB',
    ...[20, 21, 22],
  ]]);
  // An orphan that is still in the group.
  const many = [31, 32, 33, 34, 35].map((pid) => row(pid, 1, 30));
  assert.equal(found([...quiet, ...many]), [[
    30,
    'had 6 processes; "processes" allows 5',
    ...[30, 31, 32, 33, 34, 35],
  ]]);
});

/** A program that answers initialize, then runs the shell commands `then`. */
const program = (then: string) =>
  `read -r _; echo '{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"x","version":"1"}}}'
   read -r _; read -r _; ${then}`;

const as = (worker: string) => ({
  [tokenHeader]: workerToken("key", worker),
});
const call = { id: 1, method: "tools/call", params: { name: "x" } };

test("a worker at its limit does not block other workers or take their sessions", async () => {
  const served = await serve({
    command: "/bin/sh",
    args: ["-c", program("cat >/dev/null")],
  });
  /** A client that stays connected. */
  const stays = async (headers = {}) => {
    const { status, session = "" } = await served.greet(headers);
    await served.listen(session, headers);
    return { status, session };
  };
  try {
    for (let at = 0; at < 8; at++) {
      assert.is((await stays(as("a"))).status, 200);
    }
    assert.is((await served.greet(as("a"))).status, 503);
    assert.is(served.server.status.processes, 8);
    const { session } = await stays(as("b"));
    for (let at = 0; at < 8; at++) assert.is((await stays()).status, 200);
    assert.is((await served.greet()).status, 503);
    // This is not an error of the server.
    assert.is(await greet(() => createConnection(served.socket)), "busy");
    const ask = async (headers: Record<string, string>) =>
      (await served.send({ method: "notifications/x" }, {
        ...headers,
        "mcp-session-id": session,
      })).status;
    assert.equal(
      [await ask(as("b")), await ask(as("a")), await ask({})],
      [202, 404, 404],
    );
  } finally {
    await served.close();
  }
});

test("forwards requests to an HTTP server without the worker's token", async () => {
  let heard: IncomingHttpHeaders = {};
  const server = createServer((request, response) => {
    heard = request.headers;
    response.end();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const upstream = new Upstream({
    url: `http://127.0.0.1:${port}/mcp`,
    anyPath: false,
    headers: { authorization: "of the server" },
    answered: () => {},
    started: () => {},
  });
  const request = new Request("http://gateway/mcp", {
    headers: { ...as("a"), "mcp-session-id": "1" },
  });
  const response = await upstream.forward(request);
  await response.text();
  server.close();
  assert.is(heard["mcp-session-id"], "1");
  assert.is(heard["authorization"], "of the server");
  assert.is(heard[tokenHeader.toLowerCase()], undefined);
});

test("passes all requests to an API gateway, with their path and only to its host", async () => {
  const heard: string[] = [];
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    heard.push(`${request.method} ${request.url} ${body}`);
    response.end("answer");
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const url = `http://127.0.0.1:${port}/ignored`;
  const served = await serve({ command: undefined, url, api: true });
  const ask = (method: string, path: string) =>
    new Promise<number>((resolve, reject) => {
      httpRequest({ socketPath: served.socket, method, path, agent: false })
        .on("response", (response) => {
          response.resume();
          response.on("end", () => resolve(response.statusCode ?? 0));
        })
        .on("error", reject)
        .end(method === "POST" ? "body" : undefined);
    });
  try {
    assert.is(await ask("HEAD", "/"), 200);
    assert.is(await ask("POST", "/v1/messages?beta=true"), 200);
    assert.is(await ask("GET", "//other.invalid/x"), 200);
    assert.is(await ask("PUT", "/"), 405);
    assert.equal(heard, [
      "HEAD / ",
      "POST /v1/messages?beta=true body",
      "GET //other.invalid/x ",
    ]);
  } finally {
    await served.close();
    server.close();
  }
});

test("kills a process above its server's memory limit, and reports why", async () => {
  const served = await serve({
    command: "/bin/sh",
    args: [
      "-c",
      program("{ head -c 300000000 /dev/zero; sleep 20; } | tail -n 1"),
    ],
    memory: "100m",
  });
  try {
    const { session = "" } = await served.greet();
    const { message } = await served.send(call, { "mcp-session-id": session });
    assert.match(
      message.error?.message ?? "",
      /unexpectedly: it used .* of memory; "memory" allows 100 MiB/,
    );
  } finally {
    await served.close();
  }
});

test.run();
