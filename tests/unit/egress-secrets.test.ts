// Secrets that the egress proxy sets in requests, with a server of the test that has a
// certificate of the test's own authority.

import { Buffer } from "node:buffer";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import {
  type AddressInfo,
  createConnection,
  createServer,
  type Server,
  type Socket,
} from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Duplex, type Writable } from "node:stream";
import { connect as connectTls, TLSSocket } from "node:tls";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import * as v from "valibot";
import type { Entry } from "../../lib/egress/journal.ts";
import { policySchema, type PolicyText } from "../../lib/egress/policy.ts";
import { type Bounds, defaultBounds } from "../../lib/egress/proxy/bounds.ts";
import { faultOf } from "../../lib/egress/proxy/secrets.ts";
import { EgressProxy } from "../../lib/egress/proxy/proxy.ts";
import { dayMs, newAuthority, newLeaf } from "../../lib/std/certificates.ts";
import { originHeader } from "../../lib/std/origin.ts";
import { Gate } from "../../lib/std/tls-gate.ts";
import { waitFor } from "../../lib/std/wait.ts";

const test = suite("egress-secrets");

const worker = "a".repeat(64);
const without = "b".repeat(64);
const host = "api.example";
const now = Date.now();

const leafOf = async (signer: Awaited<ReturnType<typeof newAuthority>>) =>
  await newLeaf(signer, {
    name: "test",
    alternatives: [{ type: "dns", value: host }],
    lifeMs: dayMs,
    now,
  });
/** What the worker trusts. */
const own = await newAuthority({ name: "own", lifeMs: dayMs, host, now });
/** What the proxy trusts, as the user does. */
const servers = await newAuthority({ name: "servers", lifeMs: dayMs, now });
const strangers = await newAuthority({ name: "strangers", lifeMs: dayMs, now });
const leaf = await leafOf(own);

const token = {
  host,
  header: "Authorization",
  value: "Bearer real-token",
  leaf,
};

const basePolicy: PolicyText = {
  setting: "closed",
  instance: { rules: ["allow api.example", "allow api.example:8443"] },
  projects: {},
  sessions: {},
  workers: {
    [worker]: { worker: "w", session: "s", project: "/p", secrets: ["TOKEN"] },
    [without]: { worker: "o", session: "o", project: "/o" },
  },
  own: { host: [], parent: [] },
  upstream: { http: null, https: null, noProxy: "", ca: servers.cert },
  secrets: { TOKEN: token },
};

type Answer = (request: IncomingMessage, response: ServerResponse) => unknown;

interface Seen {
  method: string;
  url: string;
  headers: string[];
  bytes: number;
}

async function start(
  { answer, bounds = {}, signer = servers, server: other }: {
    answer?: Answer;
    bounds?: Partial<Bounds>;
    signer?: typeof servers;
    /** In place of the server with TLS. */
    server?: Server;
  } = {},
) {
  const directory = mkdtempSync(join(tmpdir(), "egress-secrets-"));
  const path = join(directory, "egress.sock");
  const seen: Seen[] = [];
  const web = other ?? createHttpsServer(
    await leafOf(signer),
    async (request, response) => {
      const { method = "", url = "", rawHeaders: headers } = request;
      const one = { method, url, headers, bytes: 0 };
      seen.push(one);
      if (answer) return answer(request, response);
      for await (const chunk of request) one.bytes += chunk.length;
      response.end(`page ${url}`);
    },
  );
  web.listen(0, "127.0.0.1");
  await once(web, "listening");
  const sockets = new Set<Socket>();
  web.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => {});
  });
  const entries: Entry[] = [];
  let connected = 0;
  const proxy = new EgressProxy({
    world: {
      lookup: () => Promise.resolve(["93.184.216.34"]),
      connect: () => {
        connected++;
        const { port } = web.address() as AddressInfo;
        return createConnection({
          host: "127.0.0.1",
          port,
          allowHalfOpen: true,
        });
      },
    },
    bounds: { ...defaultBounds, unknownMs: 300, ...bounds },
    record: (entry) => entries.push(entry),
  });
  proxy.server.listen(path);
  await once(proxy.server, "listening");
  const setPolicy = (change: Partial<PolicyText> = {}) =>
    proxy.setPolicy(v.parse(policySchema, { ...basePolicy, ...change }));
  setPolicy();
  const open = new Set<Socket>();
  /** A tunnel; the reply to CONNECT must be 200. */
  const tunnel = async (origin = worker, port = 443) => {
    const socket = createConnection(path);
    open.add(socket);
    socket.on("error", () => {});
    socket.write(originHeader(origin));
    socket.write(connectText(port));
    const [reply] = await once(socket, "data");
    assert.match(String(reply), /^HTTP\/1.1 200 /);
    return socket;
  };
  const secured = async (
    { origin = worker, port = 443, ca = own.cert, protocols = ["http/1.1"] }: {
      origin?: string;
      port?: number;
      ca?: string;
      protocols?: string[];
    } = {},
  ): Promise<TLSSocket> => {
    const socket = connectTls({
      socket: await tunnel(origin, port),
      servername: host,
      ca: [ca],
      ALPNProtocols: protocols,
    });
    socket.on("error", () => {});
    await once(socket, "secureConnect");
    return socket;
  };
  /** Sends the first bytes of TLS together with CONNECT. */
  const early = (): Duplex => {
    const socket = createConnection(path);
    open.add(socket);
    let before = [originHeader(worker), Buffer.from(connectText(443))];
    let isOpen = false;
    const both = new Duplex({
      read: () => {},
      write: (chunk, _, done) => {
        socket.write(Buffer.concat([...before, chunk]), () => done());
        before = [];
      },
    });
    socket.on("data", (chunk: Buffer) => {
      both.push(isOpen ? chunk : chunk.subarray(chunk.indexOf("\r\n\r\n") + 4));
      isOpen = true;
    });
    socket.on("close", () => both.destroy());
    return both;
  };
  return {
    seen,
    entries,
    early,
    tunnel,
    secured,
    setPolicy,
    connected: () => connected,
    /** Sends a text; returns what arrives until the connection is closed. */
    exchange: async (text: string | Buffer, options = {}) => {
      const socket = await secured(options);
      socket.write(text);
      return await textOf(socket);
    },
    close: () => {
      for (const socket of [...open, ...sockets]) socket.destroy();
      for (const server of [proxy.server, web]) server.close();
      rmSync(directory, { recursive: true });
    },
  };
}

const connectText = (port: number) =>
  `CONNECT ${host}:${port} HTTP/1.1\r\nHost: ${host}:${port}\r\n\r\n`;

async function textOf(socket: Socket): Promise<string> {
  let text = "";
  socket.on("data", (chunk) => text += chunk);
  await waitFor(() => socket.closed, { for: "a close", timeoutMs: 20_000 });
  return text;
}

const get = (...headers: string[]) =>
  [`GET /x?y HTTP/1.1`, `Host: ${host}`, ...headers, "", ""].join("\r\n");
const statusOf = (answer: string) => answer.slice(9, 12);
const bodyOf = (answer: string) => answer.slice(answer.indexOf("\r\n\r\n") + 4);
const valuesOf = ({ headers }: Seen, wanted: string) =>
  headers.filter((_, at) =>
    at % 2 === 1 && headers[at - 1]?.toLowerCase() === wanted
  );
const first = (seen: Seen[]): Seen => {
  const [one] = seen;
  if (!one) throw new Error("the server got no request");
  return one;
};
const entryOf = async (entries: Entry[]) => {
  await waitFor(() => entries.length > 0, { for: "it", timeoutMs: 5000 });
  return entries[0] as Entry;
};

test("the server gets the secret in place of what the worker sent, whatever that is", async () => {
  for (
    const headers of [
      [],
      ["Authorization: token placeholder"],
      ["authorization: Basic eDp5", "AUTHORIZATION: Bearer mine"],
      ["Connection: Authorization, X-Mine", "Authorization: x", "X-Mine: 1"],
    ]
  ) {
    const served = await start();
    const answer = await served.exchange(get("X-Kept: 2", ...headers));
    assert.is(statusOf(answer), "200");
    assert.is(bodyOf(answer).includes("page /x?y"), true, answer);
    const seen = first(served.seen);
    assert.equal(valuesOf(seen, "authorization"), ["Bearer real-token"]);
    assert.equal(valuesOf(seen, "x-kept"), ["2"]);
    assert.equal(valuesOf(seen, "x-mine"), []);
    assert.equal(valuesOf(seen, "host"), [host]);
    assert.not.match(answer, /real-token/);
    const { time: _, bytesUp, bytesDown, ...entry } = await entryOf(
      served.entries,
    );
    assert.ok(bytesUp > 0 && bytesDown > 0);
    assert.equal(entry, {
      session: "s",
      worker: "w",
      host,
      port: 443,
      address: "93.184.216.34",
      verdict: "allowed",
      rule: "allow api.example",
      secrets: ["TOKEN"],
    });
    served.close();
  }
});

test("several secrets of a host are set, each in its own header", async () => {
  const served = await start();
  const workers = {
    [worker]: { ...basePolicy.workers[worker], secrets: ["TOKEN", "APP"] },
  } as PolicyText["workers"];
  const app = { ...token, header: "X-App-Key", value: "real-app" };
  served.setPolicy({ workers, secrets: { TOKEN: token, APP: app } });
  assert.is(statusOf(await served.exchange(get("x-app-key: mine"))), "200");
  const seen = first(served.seen);
  assert.equal(valuesOf(seen, "x-app-key"), ["real-app"]);
  assert.equal(valuesOf(seen, "authorization"), ["Bearer real-token"]);
  served.close();
});

test("other workers and other ports have tunnels that lead to the server itself", async () => {
  const served = await start();
  for (const place of [{ origin: without }, { port: 8443 }]) {
    const options = { ...place, ca: servers.cert };
    const answer = await served.exchange(
      get("Authorization: mine", "Connection: close"),
      options,
    );
    assert.is(statusOf(answer), "200");
    assert.equal(valuesOf(served.seen.pop() as Seen, "authorization"), [
      "mine",
    ]);
  }
  served.close();
});

test("requests that are for another host, ambiguous or echoed are refused", async () => {
  const served = await start();
  const cases: [status: string, request: string][] = [
    ["421", `GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n`],
    ["421", `GET / HTTP/1.1\r\nHost: ${host}:80\r\n\r\n`],
    ["421", `GET / HTTP/1.1\r\nHost: ${host}.\r\n\r\n`],
    ["421", get("Host: evil.example")],
    ["421", get(`Host: ${host}`)],
    ["421", `GET / HTTP/1.0\r\nHost: ${host}\r\n\r\n`],
    ["400", `GET https://evil.example/ HTTP/1.1\r\nHost: ${host}\r\n\r\n`],
    ["400", `GET https://${host}/ HTTP/1.1\r\nHost: ${host}\r\n\r\n`],
    ["405", `TRACE / HTTP/1.1\r\nHost: ${host}\r\n\r\n`],
  ];
  for (const [status, request] of cases) {
    assert.is(statusOf(await served.exchange(request)), status, request);
  }
  const post = (...headers: string[]) =>
    ["POST / HTTP/1.1", `Host: ${host}`, ...headers, "", ""].join("\r\n") +
    "5\r\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n";
  // The parser closes the connection, or we refuse it.
  for (
    const request of [
      post("Content-Length: 5", "Transfer-Encoding: chunked"),
      post("Transfer-Encoding: chunked", "Content-Length: 5"),
      post("Content-Length: 5", "Content-Length: 6"),
      post("Content-Length: 5, 5"),
      post("Content-Length: +5"),
      post("Transfer-Encoding: chunked, identity"),
      post("Transfer-Encoding: xchunked"),
      post("Transfer-Encoding : chunked"),
      post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
      "GET / HTTP/1.1\r\n\r\n",
      `GET evil.example/ HTTP/1.1\r\nHost: ${host}\r\n\r\n`,
      `GET / HTTP/1.1\nHost: ${host}\nX: y\n z\n\n`,
      `CONNECT ${host}:443 HTTP/1.1\r\nHost: ${host}\r\n\r\n`,
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
      get(`X-Large: ${"x".repeat(20_000)}`),
      "\x16\x03\x01 garbage\r\n\r\n",
    ]
  ) {
    const answer = await served.exchange(request);
    assert.match(answer, /^(HTTP\/1\.1 4\d\d .*)?$/s, request);
  }
  assert.equal(served.seen, []);
  const entry = served.entries[0] as Entry;
  assert.is(entry.verdict, "refused");
  assert.match(entry.reason ?? "", /for api\.example only/);
  served.close();
});

test("an ambiguous length is a fault also if a parser has let it pass", () => {
  const faultWith = (...headers: string[]) =>
    faultOf({
      method: "POST",
      url: "/",
      httpVersion: "1.1",
      rawHeaders: ["Host", host, ...headers],
    }, host)?.status;
  const coding = "Transfer-Encoding";
  const length = "content-length";
  assert.is(faultWith(), undefined);
  assert.is(faultWith(length, "5"), undefined);
  assert.is(faultWith(coding, "Chunked"), undefined);
  for (
    const headers of [
      [coding, "chunked", length, "5"],
      [length, "5", length, "5"],
      [length, "5, 5"],
      [length, "+5"],
      [coding, "chunked", coding, "chunked"],
      [coding, "gzip, chunked"],
    ]
  ) assert.is(faultWith(...headers), 400, headers.join());
});

test("unusual characters end no more than their request", async () => {
  const served = await start();
  for (
    const request of [
      `GET /\xc3\xa9\xff HTTP/1.1\r\nHost: ${host}\r\n\r\n`,
      `GET /\x01\x7f HTTP/1.1\r\nHost: ${host}\r\n\r\n`,
      `GET /a b HTTP/1.1\r\nHost: ${host}\r\n\r\n`,
      `G\xffT / HTTP/1.1\r\nHost: ${host}\r\n\r\n`,
      get("X: a\x01b"),
      get("X: a\x00b"),
      get("X\xff: b"),
    ]
  ) {
    const answer = await served.exchange(Buffer.from(request, "latin1"));
    assert.match(answer, /^(HTTP\/1\.1 4\d\d .*)?$/s, request);
  }
  const kept = get("X: \xc3\xa9\xff");
  const answer = await served.exchange(Buffer.from(kept, "latin1"));
  assert.is(statusOf(answer), "200");
  served.close();
});

test("only the first request of a connection is sent", async () => {
  const served = await start();
  assert.match(
    await served.exchange(get("Connection: keep-alive")),
    /^HTTP\/1.1 200 .*\r\nConnection: close\r\n/is,
  );
  await served.exchange(get() + get().replace("/x?y", "/second"));
  const second = await served.secured();
  second.write(get());
  second.once("data", () => second.write(get().replace("/x?y", "/second")));
  await textOf(second);
  assert.not.ok(served.seen.some(({ url }) => url === "/second"));
  served.close();
});

test("requests go through the user's own proxy, which gets no secret", async () => {
  let asked = "";
  const web = createHttpsServer(
    await leafOf(servers),
    (request, response) => response.end(request.headers.authorization),
  ).listen(0, "127.0.0.1");
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", (head) => {
      asked += head;
      socket.write("HTTP/1.1 200 OK\r\n\r\n");
      const { port } = web.address() as AddressInfo;
      const next = createConnection({ host: "127.0.0.1", port });
      next.on("error", () => {});
      socket.on("data", (chunk) => asked += chunk.toString("latin1"));
      socket.pipe(next).pipe(socket);
    });
  });
  const served = await start({ server });
  served.setPolicy({
    upstream: {
      ...basePolicy.upstream,
      https: "http://proxy.example:3129",
    },
  });
  const answer = await served.exchange(get());
  assert.is(bodyOf(answer).includes("Bearer real-token"), true, answer);
  assert.match(asked, /^CONNECT api\.example:443 HTTP\/1.1\r\n/);
  assert.not.match(asked, "real-token");
  web.close();
  served.close();
});

test("a handshake that begins before the tunnel is open is served", async () => {
  const served = await start();
  const secured = connectTls({
    socket: served.early(),
    servername: host,
    ca: [own.cert],
  });
  secured.write(get());
  assert.is(statusOf(await textOf(secured)), "200");
  served.close();
});

test("bodies, replies without one, and Expect are passed on", async () => {
  const served = await start({
    answer: async (request, response) => {
      let text = "";
      for await (const chunk of request) text += chunk;
      const status = Number(request.url?.slice(1));
      response.writeHead(status, { "X-Body": text || "none" });
      response.end(status === 200 ? "whole" : undefined);
    },
  });
  const ask = (line: string, ...rest: string[]) =>
    served.exchange(
      [`${line} HTTP/1.1`, `Host: ${host}:443`, ...rest].join("\r\n"),
    );
  for (
    const [status, body, reply] of [
      [
        "200",
        "hello",
        await ask("POST /200", "Content-Length: 5", "", "hello"),
      ],
      [
        "200",
        "hello",
        await ask(
          "PUT /200",
          "Transfer-Encoding: CHUNKED",
          "",
          "5",
          "hello",
          "0",
          "",
          "",
        ),
      ],
      ["200", "none", await ask("POST /200", "", "")],
      ["200", "none", await ask("HEAD /200", "", "")],
      ["204", "none", await ask("DELETE /204", "", "")],
      ["304", "none", await ask("GET /304", "", "")],
    ] as const
  ) {
    assert.is(statusOf(reply), status, reply);
    assert.match(reply, `X-Body: ${body}`);
  }
  const expecting = await ask(
    "POST /200",
    "Expect: 100-continue",
    "Content-Length: 5",
    "",
    "hello",
  );
  assert.match(expecting, /^HTTP\/1.1 100 Continue\r\n\r\nHTTP\/1.1 200 /);
  assert.equal(valuesOf(served.seen.at(-1) as Seen, "expect"), []);
  served.close();
});

test("a reply arrives as it is sent", async () => {
  let go = () => {};
  const served = await start({
    answer: (_, response) => {
      response.write("first ");
      go = () => response.end("last");
    },
  });
  const socket = await served.secured();
  let text = "";
  socket.on("data", (chunk) => text += chunk);
  socket.write(get());
  await waitFor(() => text.includes("first"), { for: "it", timeoutMs: 5000 });
  assert.not.match(text, "last");
  go();
  await waitFor(() => text.includes("last"), { for: "it", timeoutMs: 5000 });
  served.close();
});

test("a server that is not the host's, or is none, gets no secret", async () => {
  const stranger = await start({ signer: strangers });
  const answer = await stranger.exchange(get());
  assert.match(answer, /^HTTP\/1.1 502 .*api\.example:443 does not answer: /s);
  assert.equal(stranger.seen, []);
  const { verdict, secrets, reason } = await entryOf(stranger.entries);
  assert.equal([verdict, secrets], ["failed", undefined]);
  assert.match(reason ?? "", /does not answer/);
  stranger.close();
  let got = "";
  for (const act of ["close", "garbage", "silent"]) {
    const server = createServer((socket) => {
      socket.on("data", (chunk) => got += chunk.toString("latin1"));
      socket.on("error", () => {});
      if (act === "close") socket.destroy();
      if (act === "garbage") socket.write("HTTP/1.1 200 OK\r\n\r\nplain");
    });
    const served = await start({ server, bounds: { connectMs: 300 } });
    assert.is(statusOf(await served.exchange(get())), "502", act);
    served.close();
  }
  assert.not.match(got, "real-token");
});

test("a server that ends in the middle, or sends no valid reply, harms only its request", async () => {
  const replies = [
    "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "garbage\r\n\r\n",
    `HTTP/1.1 200 OK\r\nX: ${"x".repeat(200_000)}\r\n\r\n`,
    "",
    "HTTP/1.1 099 Low\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\x02b\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX Y: 1\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
  ];
  const served = await start({
    answer: (request) => {
      request.socket.end(replies[Number(request.url?.slice(1))] ?? "");
    },
  });
  for (const [at] of replies.entries()) {
    const answer = await served.exchange(
      get().replace("/x?y", `/${at}`),
    );
    if (at < 2) assert.match(answer, /^HTTP\/1.1 200 .*(part|hel)/s);
    else assert.is(statusOf(answer), "502", `${at}: ${answer}`);
    assert.not.match(answer, /\r\n0\r\n\r\n$/);
  }
  served.close();
  const odd = await start({
    answer: ({ socket }) => socket.end("HTTP/1.1 200 O\x01K\r\n\r\n"),
  });
  assert.match(await odd.exchange(get()), /^HTTP\/1.1 200 OK\r\n/);
  odd.close();
});

test("a removed secret is no longer sent, also by connections that are open; a new value at once", async () => {
  const held: ServerResponse[] = [];
  const served = await start({ answer: (_, response) => held.push(response) });
  const [waiting, begun] = [await served.secured(), await served.secured()];
  begun.write(get());
  await waitFor(() => held.length === 1, { for: "it", timeoutMs: 5000 });
  served.setPolicy({
    secrets: { TOKEN: { ...token, value: "Bearer second" } },
  });
  const renewed = await served.secured();
  renewed.write(get());
  await waitFor(() => held.length === 2, { for: "it", timeoutMs: 5000 });
  assert.equal(valuesOf(served.seen[1] as Seen, "authorization"), [
    "Bearer second",
  ]);
  served.setPolicy({ secrets: {} });
  for (const socket of [waiting, begun, renewed]) {
    await waitFor(() => socket.closed, { for: "an end", timeoutMs: 5000 });
  }
  assert.is(held.length, 2);
  // What the server itself is asked then.
  const tunnel = served.secured({ ca: servers.cert });
  (await tunnel).write(get("Authorization: placeholder"));
  await waitFor(() => held.length === 3, { for: "it", timeoutMs: 5000 });
  assert.equal(valuesOf(served.seen[2] as Seen, "authorization"), [
    "placeholder",
  ]);
  served.close();
});

test("a connection that sends no request is closed, and rules apply to open ones", async () => {
  const served = await start({ bounds: { headMs: 200 } });
  for (
    const socket of [
      await served.tunnel(),
      await served.secured(),
    ]
  ) {
    await waitFor(() => socket.closed, { for: "an end", timeoutMs: 5000 });
  }
  served.close();
  const ruled = await start();
  const open = await ruled.secured();
  ruled.setPolicy({ instance: { rules: [] } });
  await waitFor(() => open.closed, { for: "an end", timeoutMs: 5000 });
  ruled.close();
});

/** A request on a connection that stops reading when its gate is held. */
async function gated(
  served: { tunnel: () => Promise<Socket> },
  text: string,
): Promise<{ gate: Gate; socket: TLSSocket }> {
  const gate = new Gate(await served.tunnel());
  const socket = connectTls({ socket: gate, servername: host, ca: [own.cert] });
  socket.on("error", () => {});
  socket.write(text);
  await once(socket, "secureConnect");
  return { gate, socket };
}

test("a body waits until the server can get it", async () => {
  const server = createServer((socket) => socket.on("error", () => {}));
  const served = await start({ server });
  const chunk = Buffer.alloc(64 * 1024);
  const bytes = 128 * 1024 ** 2;
  const socket = await served.secured();
  socket.write(
    `POST / HTTP/1.1\r\nHost: ${host}\r\nContent-Length: ${bytes}\r\n\r\n`,
  );
  let written = 0;
  const send = () => {
    while (written < bytes && !socket.destroyed) {
      written += chunk.length;
      if (!socket.write(chunk)) return void socket.once("drain", send);
    }
  };
  send();
  await sleep(1000);
  assert.ok(written < bytes / 4, `${written} written`);
  served.close();
});

test("neither side can fill the proxy's memory", async () => {
  const chunk = Buffer.alloc(64 * 1024);
  const bytes = 96 * 1024 ** 2;
  const lots = (sink: Writable) => {
    let sent = 0;
    const send = () => {
      while (sent < bytes) {
        sent += chunk.length;
        if (!sink.write(chunk)) return void sink.once("drain", send);
      }
    };
    send();
    return () => sent;
  };
  const leaf = await leafOf(servers);
  let sent = () => 0;
  const gates: Gate[] = [];
  const server = createServer((socket) => {
    const gate = new Gate(socket);
    const secured = new TLSSocket(gate, { isServer: true, ...leaf });
    secured.on("error", () => {});
    secured.once("data", (head) => {
      gate.hold();
      gates.push(gate);
      if (String(head).startsWith("POST")) return; // reads nothing more
      secured.write(`HTTP/1.1 200 OK\r\nContent-Length: ${bytes}\r\n\r\n`);
      sent = lots(secured);
    });
  });
  const served = await start({ server });
  const reading = await gated(served, get());
  reading.gate.hold();
  const writing = await gated(
    served,
    `POST / HTTP/1.1\r\nHost: ${host}\r\nContent-Length: ${bytes}\r\n\r\n`,
  );
  const written = lots(writing.socket);
  await sleep(1500);
  // What fits into the buffers of sockets and TLS.
  assert.ok(sent() > chunk.length && sent() < bytes / 8, `${sent()} sent`);
  assert.ok(
    written() > chunk.length && written() < bytes / 8,
    `${written()} written`,
  );
  let read = 0;
  reading.socket.on("data", (chunk) => read += chunk.length);
  reading.gate.release();
  await waitFor(() => read > bytes, { for: "it", timeoutMs: 20_000 });
  assert.ok(written() < bytes / 8);
  served.close();
});

test.run();
