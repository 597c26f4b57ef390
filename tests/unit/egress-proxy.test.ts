// The egress proxy with servers of the test. Names are those of the test's own table, and
// every address leads to one of these servers.

import { Buffer } from "node:buffer";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import {
  createServer as createHttpServer,
  type IncomingMessage,
} from "node:http";
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
import { suite } from "uvu";
import * as assert from "uvu/assert";
import * as v from "valibot";
import { askProxy } from "../../lib/egress/ask.ts";
import type { Entry } from "../../lib/egress/journal.ts";
import { policySchema, type PolicyText } from "../../lib/egress/policy.ts";
import { type Bounds, defaultBounds } from "../../lib/egress/proxy/bounds.ts";
import { EgressProxy } from "../../lib/egress/proxy/proxy.ts";
import {
  connectToProxy,
  openTunnelThrough,
} from "../../lib/egress/proxy/through.ts";
import { realWorld } from "../../lib/egress/proxy/world.ts";
import { originHeader } from "../../lib/std/origin.ts";
import { waitFor } from "../../lib/std/wait.ts";

const test = suite("egress-proxy");

const worker = "a".repeat(64);
const other = "b".repeat(64);

const basePolicy: PolicyText = {
  setting: "closed",
  instance: {
    rules: [
      "allow allowed.example",
      "allow *.many.example",
      "allow down.example",
    ],
  },
  projects: { "/p": { rules: [] } },
  sessions: { s: { rules: ["deny secret.many.example"] } },
  workers: {
    [worker]: { worker: "w", session: "s", project: "/p" },
    [other]: { worker: "o", session: null, project: "/o" },
  },
  own: { host: ["93.184.216.99"], parent: ["172.17.0.5"] },
  upstream: { http: null, https: null, noProxy: "", ca: null },
};

const names: Record<string, string[]> = {
  "allowed.example": ["93.184.216.34"],
  "inside.many.example": ["10.0.0.5"],
  "both.many.example": ["93.184.216.34", "fd00::1"],
  "metadata.many.example": ["169.254.169.254"],
  "host.many.example": ["93.184.216.99"],
  "mapped.many.example": ["::ffff:127.0.0.1"],
  "six.many.example": ["2606:2800::1"],
  "second.many.example": ["93.184.216.1", "93.184.216.34"],
  "none.many.example": [],
  "down.example": ["93.184.216.1"],
};

async function start(
  bounds: Partial<Bounds> = {},
  { lookup, connect: connectOther }: {
    lookup?: (name: string) => Promise<string[]>;
    connect?: (address: string, port: number) => Socket | undefined;
  } = {},
) {
  const directory = mkdtempSync(join(tmpdir(), "egress-"));
  const path = join(directory, "egress.sock");
  const echo = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => socket.destroy());
    socket.write("hello ");
    socket.pipe(socket);
  }).listen(0, "127.0.0.1");
  const seen: { url: string; headers: string[]; body: string }[] = [];
  const web = createHttpServer(async (request: IncomingMessage, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    seen.push({ url: request.url ?? "", headers: request.rawHeaders, body });
    response.setHeader("X-From", "server");
    response.end(`page ${request.url}`);
  }).listen(0, "127.0.0.1");
  await Promise.all([once(echo, "listening"), once(web, "listening")]);
  const portOf = (server: Server) => (server.address() as AddressInfo).port;
  const connected: string[] = [];
  const entries: Entry[] = [];
  const proxy = new EgressProxy({
    world: {
      lookup: lookup ?? ((name) => {
        const found = names[name];
        return found
          ? Promise.resolve(found)
          : Promise.reject(Object.assign(new Error(), { code: "ENOTFOUND" }));
      }),
      connect: (address, port) => {
        const other = connectOther?.(address, port);
        if (other) return other;
        connected.push(`${address}:${port}`);
        const isDown = address === "93.184.216.1";
        return createConnection({
          host: "127.0.0.1",
          // Nobody listens on port 1.
          port: isDown ? 1 : portOf(port === 80 ? web : echo),
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
  const connect = (origin = worker) => {
    const socket = createConnection(path);
    open.add(socket);
    socket.on("error", () => {});
    socket.write(originHeader(origin));
    return socket;
  };
  /** Sends a text; returns what arrives until the connection is closed. */
  const exchange = async (text: string, origin = worker) => {
    const socket = connect(origin);
    socket.write(text);
    return await textOf(socket);
  };
  return {
    proxy,
    path,
    setPolicy,
    connect,
    exchange,
    connected,
    entries,
    seen,
    /** Sends some bytes through a tunnel, and ends it. */
    tunnel: async (place: string, origin = worker) => {
      const socket = connect(origin);
      socket.end(
        `CONNECT ${place} HTTP/1.1\r\nHost: ${place}\r\n\r\nbytes`,
      );
      return await textOf(socket);
    },
    get: (url: string, origin = worker) =>
      exchange(`GET ${url} HTTP/1.1\r\nHost: other.example\r\n\r\n`, origin),
    close: () => {
      for (const socket of open) socket.destroy();
      for (const server of [proxy.server, echo, web]) server.close();
      rmSync(directory, { recursive: true });
    },
  };
}

async function textOf(socket: Socket): Promise<string> {
  let text = "";
  socket.on("data", (chunk) => text += chunk);
  socket.on("error", () => {});
  await waitFor(() => socket.closed, { for: "a close", timeoutMs: 20_000 });
  return text;
}

const statusOf = (answer: string) => answer.slice(9, 12);
const bodyOf = (answer: string) => answer.slice(answer.indexOf("\r\n\r\n") + 4);

test("a tunnel leads to the address that was judged, and is logged with its bytes", async () => {
  const served = await start();
  const answer = await served.tunnel("ALLOWED.example.:443");
  assert.is(
    answer,
    "HTTP/1.1 200 Connection established\r\n\r\nhello bytes",
  );
  assert.equal(served.connected, ["93.184.216.34:443"]);
  await waitFor(() => served.entries.length > 0, {
    for: "an entry",
    timeoutMs: 5000,
  });
  const [{ time, ...entry }] = served.entries as [Entry];
  assert.ok(Math.abs(Date.parse(time) - Date.now()) < 60_000);
  assert.equal(entry, {
    session: "s",
    worker: "w",
    host: "allowed.example",
    port: 443,
    address: "93.184.216.34",
    verdict: "allowed",
    rule: "allow allowed.example",
    bytesUp: 5,
    bytesDown: 11,
  });
  served.close();
});

test("a request with a URL is passed on without headers for the proxy", async () => {
  const served = await start();
  const answer = await served.exchange(
    "POST http://allowed.example/x?y HTTP/1.1\r\nHost: secret.example\r\n" +
      "Proxy-Authorization: Basic eDp5\r\nProxy-Connection: keep-alive\r\n" +
      "Connection: X-Mine, Content-Length\r\nX-Mine: 1\r\nX-Kept: 2\r\n" +
      "Upgrade: websocket\r\nContent-Length: 4\r\n\r\nbody",
  );
  assert.is(statusOf(answer), "200");
  assert.is(bodyOf(answer), "page /x?y");
  assert.match(answer, /X-From: server/);
  assert.match(answer, /Connection: close/i);
  assert.equal(served.seen, [{
    url: "/x?y",
    headers: [
      "Host",
      "allowed.example",
      "X-Kept",
      "2",
      "Content-Length",
      "4",
      "Connection",
      "close",
    ],
    body: "body",
  }]);
  assert.equal(served.connected, ["93.184.216.34:80"]);
  served.close();
});

test("a chunked body is passed on", async () => {
  const served = await start();
  const answer = await served.exchange(
    "POST http://allowed.example/ HTTP/1.1\r\nHost: a\r\n" +
      "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
  );
  assert.is(statusOf(answer), "200");
  assert.is(served.seen[0]?.body, "body");
  served.close();
});

test("a reply that is not valid ends no more than its request", async () => {
  let reply = "";
  const raw = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", () => socket.end(reply, "latin1"));
  }).listen(0, "127.0.0.1");
  await once(raw, "listening");
  const { port } = raw.address() as AddressInfo;
  const served = await start({}, {
    connect: () => createConnection({ host: "127.0.0.1", port }),
  });
  for (
    const [text, status] of [
      ["HTTP/1.1 200 O\x01K\r\n\r\n", "200"],
      ["HTTP/1.1 200 \xe9\r\n\r\n", "200"],
      ["HTTP/1.1 099 Low\r\n\r\n", "502"],
      [
        "HTTP/1.1 101 Other\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "502",
      ],
      ["HTTP/1.1 200 OK\r\nX: a\x02b\r\n\r\n", "502"],
      ["garbage\r\n\r\n", "502"],
      ["", "502"],
    ] as const
  ) {
    reply = text;
    const answer = await served.get("http://allowed.example/");
    assert.is(statusOf(answer), status, JSON.stringify(text));
  }
  raw.close();
  served.close();
});

test("a refusal is a sentence, and connects to nothing", async () => {
  const served = await start();
  const answer = await served.tunnel("evil.example:443");
  assert.match(
    answer,
    /^HTTP\/1.1 403 Egress to evil\.example:443 is refused\r\n/,
  );
  const sentence =
    "Egress to evil.example:443 is refused: no rule allows it, and the preset is closed; to allow it, run on the host: claudy egress allow evil.example\n";
  assert.is(bodyOf(answer), sentence);
  assert.is(
    bodyOf(await served.get("http://evil.example/")),
    sentence.replace(":443", ":80"),
  );
  assert.match(
    await served.tunnel("secret.many.example:443"),
    /refused by the rule "deny secret\.many\.example" of session "s"/,
  );
  assert.equal(served.connected, []);
  assert.equal(
    served.entries.map((
      { host, port, verdict, rule },
    ) => [host, port, verdict, rule]),
    [
      ["evil.example", 443, "refused", "preset closed"],
      ["evil.example", 80, "refused", "preset closed"],
      ["secret.many.example", 443, "refused", "deny secret.many.example"],
    ],
  );
  served.close();
});

test("an allowed name that resolves to another than a public address is refused", async () => {
  const served = await start();
  const names = ["inside", "both", "metadata", "host", "mapped"];
  for (const name of names) {
    const answer = await served.tunnel(`${name}.many.example:443`);
    assert.is(statusOf(answer), "403", name);
    assert.match(answer, /it resolves to/, name);
  }
  assert.equal(served.connected, []);
  assert.is(statusOf(await served.tunnel("six.many.example:443")), "200");
  assert.equal(served.connected, ["2606:2800::1:443"]);
  served.close();
});

test("addresses are refused in every form", async () => {
  const served = await start();
  served.setPolicy({ setting: "open" });
  const forms = [
    "127.0.0.1",
    "127.1",
    "0x7f.1",
    "2130706433",
    "0177.0.0.1",
    "127.0.0.1.",
    "0",
    "169.254.169.254",
    "0xa9fea9fe",
    "10.0.0.1",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:7f00:1::]",
    "[fd00:ec2::254]",
  ];
  for (const host of forms) {
    assert.is(statusOf(await served.tunnel(`${host}:80`)), "403", host);
    assert.is(statusOf(await served.get(`http://${host}/`)), "403", host);
  }
  assert.equal(served.connected, []);
  served.close();
});

test("a request without a valid host and port is refused and logged as it was", async () => {
  const served = await start({ entries: 1000 });
  served.setPolicy({ setting: "open" });
  const places = [
    "allowed.example",
    "allowed.example:",
    "allowed.example:0",
    "allowed.example:65536",
    "user@allowed.example:443",
    "[fe80::1%25eth0]:443",
    "allowed..example:443",
    "/",
    "*",
  ];
  for (const place of places) {
    assert.is(statusOf(await served.tunnel(place)), "400", place);
  }
  const urls = [
    "/",
    "*",
    "https://allowed.example/",
    "http://user@allowed.example/",
    "http://allowed.example:0/",
    "ftp://allowed.example/",
    `http://${"a".repeat(300)}/`,
  ];
  for (const url of urls) {
    assert.is(statusOf(await served.get(url)), "400", url);
  }
  const malformed = [
    "\x16\x03\x01\x02\0",
    "GARBAGE\r\n\r\n",
    "GET\r\n\r\n",
    "GET http://allowed.example\\@evil.example/ HTTP/1.1\r\n\r\n",
  ];
  for (const bytes of malformed) {
    assert.match(await served.exchange(bytes), /^(HTTP\/1.1 400 .*|)$/s);
  }
  assert.equal(served.connected, []);
  assert.is(served.entries.length, places.length + urls.length);
  assert.ok(
    served.entries.every(({ port, rule }) => port === null && rule === "form"),
  );
  assert.is(served.entries[4]?.host, "user@allowed.example:443");
  assert.is(served.entries.at(-1)?.host.length, 255);
  served.close();
});

test("a name is resolved once: a second answer has no effect", async () => {
  let asked = 0;
  const served = await start({}, {
    lookup: () =>
      Promise.resolve(++asked === 1 ? ["93.184.216.34"] : ["10.0.0.5"]),
  });
  assert.match(await served.tunnel("allowed.example:443"), /hello bytes$/);
  assert.is(asked, 1);
  assert.equal(served.connected, ["93.184.216.34:443"]);
  // The next request gets the second answer, and is judged by it.
  assert.is(statusOf(await served.get("http://allowed.example/")), "403");
  assert.is(served.connected.length, 1);
  served.close();
});

test("the next address is used if the first does not answer", async () => {
  const served = await start();
  assert.match(await served.tunnel("second.many.example:443"), /hello bytes$/);
  assert.equal(served.connected, ["93.184.216.1:443", "93.184.216.34:443"]);
  assert.is(served.entries[0]?.address, "93.184.216.34");
  served.close();
});

test("a server that cannot be reached is no refusal", async () => {
  const served = await start();
  for (const host of ["down.example", "none.many.example", "nx.many.example"]) {
    const answer = await served.tunnel(`${host}:443`);
    assert.is(statusOf(answer), "502", host);
    assert.match(answer, /is allowed, but/, host);
  }
  assert.equal(
    served.entries.map(({ verdict }) => verdict),
    Array(3).fill("failed"),
  );
  served.close();
});

test("a name that is not resolved in time fails", async () => {
  const served = await start({ lookupMs: 50 }, {
    lookup: () => new Promise(() => {}),
  });
  const answer = await served.tunnel("allowed.example:443");
  assert.match(answer, /502 .*cannot be resolved: no answer in time/s);
  served.close();
});

test("an unknown container is refused, one that becomes known in time is not", async () => {
  const served = await start();
  const answer = await served.tunnel("allowed.example:443", "c".repeat(64));
  assert.is(statusOf(answer), "403");
  assert.match(answer, /the container cccccccccccc is no known worker/);
  assert.is(served.entries[0]?.worker, null);
  const pending = served.tunnel("allowed.example:443", "d".repeat(64));
  await sleep(50);
  const known = { worker: "new", session: null, project: "/p" };
  served.setPolicy({ workers: { ["d".repeat(64)]: known } });
  assert.match(await pending, /hello bytes$/);
  served.close();
});

test("without a policy everything is refused", async () => {
  const served = await start();
  served.proxy.setPolicy(undefined);
  const answer = await served.tunnel("allowed.example:443");
  assert.is(statusOf(answer), "403");
  served.setPolicy({ setting: null });
  assert.is(statusOf(await served.tunnel("allowed.example:443")), "403");
  assert.equal(served.connected, []);
  served.close();
});

test("a new policy applies to new requests and ends tunnels that it refuses", async () => {
  const served = await start();
  const socket = served.connect();
  socket.write("CONNECT allowed.example:443 HTTP/1.1\r\n\r\n");
  await once(socket, "data");
  served.setPolicy({});
  await sleep(50);
  assert.not(socket.closed, "a tunnel that is still allowed stays");
  served.setPolicy({ projects: { "/p": { rules: ["deny allowed.example"] } } });
  await textOf(socket);
  assert.is(statusOf(await served.tunnel("allowed.example:443")), "403");
  // Only for that project.
  assert.is(statusOf(await served.tunnel("allowed.example:443", other)), "200");
  served.close();
});

test("the tunnels of a worker end with its record", async () => {
  const served = await start();
  const socket = served.connect();
  socket.write("CONNECT allowed.example:443 HTTP/1.1\r\n\r\n");
  await once(socket, "data");
  served.setPolicy({ workers: {} });
  await textOf(socket);
  served.close();
});

test("a refusal reaches a worker that is still sending", async () => {
  const served = await start();
  for (const host of ["evil.example", "down.example"]) {
    const socket = served.connect();
    const head = `POST http://${host}/ HTTP/1.1\r\nHost: a\r\n` +
      "Content-Length: 100000000\r\n\r\n";
    socket.write(head);
    // A client that reads after it has sent.
    const chunk = Buffer.alloc(1024 ** 2);
    for (let sent = 0; sent < 30; sent++) {
      if (!socket.write(chunk)) {
        await Promise.race([once(socket, "drain"), sleep(3000)]);
      }
    }
    assert.match(await textOf(socket), /^HTTP\/1.1 (403|502) /, host);
  }
  served.close();
});

test("a connection serves one request", async () => {
  const served = await start();
  const request = "GET http://allowed.example/ HTTP/1.1\r\nHost: a\r\n\r\n";
  const answer = await served.exchange(request.repeat(500));
  assert.ok(answer.split("HTTP/1.1 ").length <= 2);
  assert.ok(served.seen.length <= 1);
  served.close();
});

test("a worker has few connections, and takes none of others", async () => {
  const served = await start({ perWorker: 3, connections: 5 });
  const held = await Promise.all([1, 2, 3].map(async () => {
    const socket = served.connect();
    socket.write("CONNECT allowed.example:443 HTTP/1.1\r\n\r\n");
    await once(socket, "data");
    return socket;
  }));
  assert.is(statusOf(await served.tunnel("allowed.example:443")), "503");
  assert.is(statusOf(await served.tunnel("allowed.example:443", other)), "200");
  held[0]?.destroy();
  const again = () => served.tunnel("allowed.example:443");
  await waitFor(async () => statusOf(await again()) === "200", {
    for: "a place",
    timeoutMs: 5000,
  });
  // In all: those without a header count too.
  for (let count = 0; count < 3; count++) createConnection(served.path);
  await sleep(50);
  assert.is(await served.tunnel("allowed.example:443", other), "");
  served.close();
});

test("a large or slow head is refused", async () => {
  const served = await start({ headMs: 300 });
  const large = `GET http://allowed.example/ HTTP/1.1\r\nX: ${
    "x".repeat(20_000)
  }`;
  assert.match(
    await served.exchange(`${large}\r\n\r\n`),
    /^(HTTP\/1.1 400 .*|)$/s,
  );
  const slow = served.connect();
  slow.write("GET http://allowed.example/ HTTP/1.1\r\nX");
  const timer = setInterval(() => slow.write("x"), 50);
  assert.is(await textOf(slow), "");
  clearInterval(timer);
  assert.equal(served.connected, []);
  served.close();
});

test("a tunnel without traffic is closed", async () => {
  const served = await start({ idleMs: 300 });
  const socket = served.connect();
  socket.write("CONNECT allowed.example:443 HTTP/1.1\r\n\r\n");
  await textOf(socket);
  await waitFor(() => served.entries.length > 0, {
    for: "an entry",
    timeoutMs: 5000,
  });
  served.close();
});

test("a worker writes few entries, and the next one counts those left out", async () => {
  const served = await start({ entries: 3, entriesPerSecond: 20 });
  for (let count = 0; count < 30; count++) {
    await served.tunnel("evil.example:443");
  }
  await sleep(200);
  await served.tunnel("evil.example:443");
  const { entries } = served;
  assert.ok(entries.length < 30, String(entries.length));
  const dropped = entries.reduce((sum, entry) => sum + (entry.dropped ?? 0), 0);
  assert.is(entries.length + dropped, 31);
  served.close();
});

test("a command gets a judgement and no connection", async () => {
  const served = await start();
  const ask = (host: string, port = 443, session: string | null = null) =>
    askProxy(createConnection(served.path), { host, port }, {
      session,
      project: null,
    });
  const allowed = await ask("allowed.example");
  assert.ok(allowed.allowed);
  assert.equal(allowed.addresses, ["93.184.216.34"]);
  const metadata = await ask("169.254.169.254", 80);
  assert.not(metadata.allowed);
  assert.match(
    metadata.sentence,
    /a link-local address, which no rule can allow/,
  );
  assert.ok((await ask("secret.many.example")).failed);
  assert.not((await ask("secret.many.example", 443, "s")).allowed);
  assert.not((await ask("inside.many.example")).allowed);
  assert.not((await ask("fd00::1")).allowed);
  assert.equal(served.connected, []);
  assert.equal(served.entries, []);
  // A worker cannot ask.
  assert.is(statusOf(await served.get("/check?host=a.example&port=1")), "400");
  served.close();
});

/** A user's own proxy that requires a password. */
async function startUpstream() {
  const requests: string[] = [];
  const server = createServer((socket) => {
    socket.on("error", () => {});
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk;
      if (!text.includes("\r\n\r\n")) return;
      requests.push(text);
      text = "";
      const isKnown = requests.at(-1)?.includes("Basic dXNlcjpzM2NyZXQ=");
      if (!isKnown) return socket.end("HTTP/1.1 407 No\r\n\r\n");
      if (requests.at(-1)?.startsWith("CONNECT")) {
        return socket.write("HTTP/1.1 200 OK\r\n\r\nfrom upstream");
      }
      socket.end("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage");
    });
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return { server, requests, port: (server.address() as AddressInfo).port };
}

test("the host's own proxy is used for what NO_PROXY does not name", async () => {
  const upstream = await startUpstream();
  const served = await start({}, {
    connect: (_, port) =>
      port === 3999
        ? createConnection({ host: "127.0.0.1", port: upstream.port })
        : undefined,
  });
  const url = "http://user:s3cret@10.0.0.7:3999/";
  const use = (password: string) =>
    served.setPolicy({
      upstream: {
        http: url.replace("s3cret", password),
        https: url.replace("s3cret", password),
        noProxy: "six.many.example, .direct.example",
        ca: null,
      },
      instance: { rules: ["allow *"] },
    });
  use("s3cret");
  const socket = served.connect();
  socket.write("CONNECT nx.example:443 HTTP/1.1\r\n\r\n");
  const [first] = await once(socket, "data") as [Buffer];
  assert.match(String(first), /^HTTP\/1.1 200/);
  assert.match(upstream.requests[0] ?? "", /^CONNECT nx\.example:443 HTTP/);
  const page = await served.get("http://allowed.example/x");
  assert.is(bodyOf(page), "page");
  assert.match(
    upstream.requests[1] ?? "",
    /^GET http:\/\/allowed\.example:80\/x /,
  );
  // Names are judged, and addresses if they can be resolved here.
  assert.is(statusOf(await served.tunnel("secret.many.example:443")), "403");
  assert.is(statusOf(await served.tunnel("inside.many.example:443")), "403");
  assert.is(statusOf(await served.tunnel("169.254.169.254:80")), "403");
  assert.is(upstream.requests.length, 2);
  // Past the proxy.
  assert.match(await served.tunnel("six.many.example:443"), /hello bytes$/);
  // A refusal of the proxy is told without the password.
  use("wrong-password");
  const refused = await served.tunnel("nx.example:443");
  assert.match(refused, /502 .*the host's proxy answers with status 407/s);
  assert.not(refused.includes("wrong-password"));
  assert.not(JSON.stringify(served.entries).includes("password"));
  upstream.server.close();
  served.close();
});

test("no connection is left to a proxy that refuses, is silent or has no TLS", async () => {
  let open = 0;
  let answer = "";
  const server = createServer((socket) => {
    open++;
    socket.on("error", () => {});
    socket.on("close", () => open--);
    socket.on("data", () => socket.write(answer));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const times = { lookupMs: 100, connectMs: 100 };
  const reach = async (scheme: string) => {
    const via = new URL(`${scheme}://127.0.0.1:${port}`);
    const socket = await connectToProxy(realWorld, via, null, times);
    const target = { host: "a.example", port: 443 };
    await openTunnelThrough(socket, via, target, times.connectMs);
  };
  for (
    const [scheme, text] of [
      ["http", "HTTP/1.1 403 Forbidden\r\n\r\n"],
      ["http", "HTTP/1.1 200 OK\r\n"],
      ["https", ""],
      ["https", "HTTP/1.1 400 Bad Request\r\n\r\n"],
    ] as const
  ) {
    answer = text;
    let failed = false;
    await reach(scheme).catch(() => failed = true);
    assert.ok(failed);
    await waitFor(() => open === 0, {
      for: `the end of it: ${scheme} ${text}`,
      timeoutMs: 3000,
    });
  }
  server.close();
});

test("much data passes in both directions, with bounded memory", async () => {
  const served = await start();
  const size = 32 * 1024 ** 2;
  const socket = served.connect();
  socket.write("CONNECT allowed.example:443 HTTP/1.1\r\n\r\n");
  const [first] = await once(socket, "data") as [Buffer];
  let received = first.length -
    "HTTP/1.1 200 Connection established\r\n\r\n".length;
  socket.on("data", (chunk: Buffer) => received += chunk.length);
  const block = Buffer.alloc(1024 ** 2, "x");
  for (let sent = 0; sent < size; sent += block.length) {
    if (!socket.write(block)) await once(socket, "drain");
  }
  socket.end();
  await once(socket, "close");
  assert.is(received, size + "hello ".length);
  served.close();
});

test.run();
