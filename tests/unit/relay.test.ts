// The relay with an API of the test.

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
} from "node:fs";
import {
  Agent,
  createServer as createHttpServer,
  type IncomingMessage,
  request as requestHttp,
  type ServerResponse,
} from "node:http";
import {
  type AddressInfo,
  createConnection,
  createServer as createNetServer,
  type Socket,
} from "node:net";
import { PassThrough } from "node:stream";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { connect as connectTls } from "node:tls";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { directNetwork } from "../../lib/egress/upstream.ts";
import { homePaths } from "../../lib/instance/paths.ts";
import { ensureHome } from "../../lib/instance/volumes.ts";
import { readAuthorities } from "../../lib/relay/authority.ts";
import { ensureAuthority, newLeaf } from "../../lib/relay/certificates.ts";
import type { Entry } from "../../lib/relay/entry.ts";
import type { Grant } from "../../lib/relay/grant.ts";
import { type Bounds, defaultBounds } from "../../lib/relay/relay/bounds.ts";
import { Relay } from "../../lib/relay/relay/relay.ts";
import type { Report, State } from "../../lib/relay/state.ts";
import { LoginRefresh } from "../../lib/home/login.ts";
import { relayChild } from "../../lib/parent/relay.ts";
import { originHeader } from "../../lib/std/origin.ts";
import { ownerOf } from "../../lib/std/owned.ts";
import { createMeter } from "../../lib/usage/meter.ts";
import { fakeInstance } from "../helper/fake-engine.ts";
import { waitFor } from "../../lib/std/wait.ts";

const worker = "a".repeat(64);
const other = "b".repeat(64);
const shared = "c".repeat(64);
const placeholder = "sk-ant-hal9000-own";
const real = "sk-ant-api03-real";

const usage = {
  version: 1,
  paused: {},
  sessions: {},
  projects: {},
  maxPerMinute: 0,
};

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

interface Asked {
  method?: string;
  path?: string;
  headers?: Record<string, string>;
  /** Without the placeholder. */
  anonymous?: boolean;
  body?: string | Uint8Array;
  /** The container; undefined for the shared network. */
  from?: string | undefined;
}

const test = suite("relay");

/** The authority of all tests: keys take some time. */
const root = mkdtempSync(join(tmpdir(), "relay-"));
const home = homePaths(root);
const instance = { home, owner: ownerOf(root), prefix: "hal9000" };
ensureHome(instance);
await ensureAuthority(instance);
const authorities = readAuthorities(home);
const leaf = await newLeaf(authorities);
test.after(() => rmSync(root, { recursive: true }));

function grantOf(change: Partial<Grant>): Grant {
  return {
    version: 1,
    home: "claude/s",
    placeholder,
    kind: "key",
    credential: null,
    baseUrl: null,
    headers: [],
    upstream: directNetwork.upstream,
    isolated: true,
    ...change,
  };
}

async function start(
  { answer, grant = {}, bounds = {}, state = {} }: {
    answer?: Answer;
    grant?: Partial<Grant>;
    bounds?: Partial<Bounds>;
    state?: Partial<State>;
  } = {},
) {
  const seen: { url: string; headers: string[]; body: Buffer }[] = [];
  const api = createHttpServer(async (request, response) => {
    const chunks: Uint8Array[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    seen.push({ url: request.url ?? "", headers: request.rawHeaders, body });
    if (answer) return answer(request, response);
    response.setHeader("X-From", "api");
    response.end("reply");
  }).listen(0, "127.0.0.1");
  await once(api, "listening");
  const { port } = api.address() as AddressInfo;
  const baseUrl = `http://127.0.0.1:${port}`;
  const reports: Report[] = [];
  const relay = new Relay({
    bounds: { ...defaultBounds, unknownMs: 50, ...bounds },
    report: (report) => void reports.push(report),
    meter: createMeter((event) => void reports.push({ kind: "usage", event })),
  });
  const directory = mkdtempSync(join(root, "sockets-"));
  const path = join(directory, "443.sock");
  const server = relay.server().listen(path);
  await once(server, "listening");
  const client = (home: string) => ({
    worker: home,
    session: home,
    project: "/p",
    home,
  });
  const full: State = {
    leaf,
    credentials: { key: real, token: null, login: null },
    workers: {
      [worker]: client("claude/s"),
      [other]: client("claude/other"),
      [shared]: client("claude/shared"),
    },
    grants: {
      "claude/s": grantOf({ baseUrl, ...grant }),
      "claude/other": grantOf({
        baseUrl,
        home: "claude/other",
        placeholder: "sk-ant-hal9000-other",
      }),
      "claude/shared": grantOf({
        baseUrl,
        home: "claude/shared",
        placeholder: "sk-ant-hal9000-shared",
        isolated: false,
      }),
    },
    usage,
    ...state,
  };
  relay.setState(full);
  const openRaw = (from: string | undefined) => {
    const raw = createConnection(path);
    // Data may be on its way when a test ends.
    raw.on("error", () => {});
    raw.write(originHeader(from ?? null));
    return raw;
  };
  const open = (from: string | undefined) => {
    const socket = connectTls({
      socket: openRaw(from),
      servername: "api.anthropic.com",
      ca: authorities.map(({ cert }) => cert),
    });
    socket.on("error", () => {});
    return socket;
  };
  const begin = (asked: Asked) => {
    const { method = "POST", path = "/v1/messages?beta=true", headers } = asked;
    return requestHttp({
      method,
      path,
      createConnection: () => open("from" in asked ? asked.from : worker),
      headers: {
        ...(asked.anonymous || headers?.["authorization"]
          ? {}
          : { "x-api-key": placeholder }),
        ...headers,
      },
    });
  };
  const ask = async (asked: Asked = {}) => {
    const request = begin(asked);
    request.end(asked.body ?? "");
    const [response] = await once(request, "response") as [IncomingMessage];
    let text = "";
    for await (const chunk of response) text += chunk;
    return { status: response.statusCode, headers: response.headers, text };
  };
  const entries = () =>
    reports.flatMap((report) =>
      report.kind === "entry" ? [report.entry as Entry] : []
    );
  return {
    relay,
    full,
    seen,
    reports,
    entries,
    openRaw,
    open,
    begin,
    ask,
    port,
    close: () => {
      api.closeAllConnections();
      api.close();
      server.close();
    },
  };
}

const headerOf = (headers: string[], name: string) =>
  headers[headers.findIndex((one) => one.toLowerCase() === name) + 1];

test("the placeholder of a session is replaced by the credential", async () => {
  const { ask, seen, entries, port, close } = await start();
  const found = await ask({ body: "prompt", headers: { "x-own": "1" } });
  assert.is(found.status, 200);
  assert.is(found.text, "reply");
  assert.is(found.headers["x-from"], "api");
  const [{ url = "", headers = [], body } = {}] = seen;
  assert.is(url, "/v1/messages?beta=true");
  assert.is(body?.toString(), "prompt");
  assert.is(headerOf(headers, "x-api-key"), real);
  assert.is(headerOf(headers, "host"), `127.0.0.1:${port}`);
  assert.is(headerOf(headers, "x-own"), "1");
  assert.not.match(headers.join("\n"), placeholder);
  await waitFor(() => entries().length > 0, {
    for: "an entry",
    timeoutMs: 1000,
  });
  const [{ time: _, ms: __, ...entry }] = entries() as [Entry];
  assert.equal(entry, {
    session: "claude/s",
    worker: "claude/s",
    method: "POST",
    path: "/v1/messages",
    status: 200,
    bytesUp: 6,
    bytesDown: 5,
  });
  close();
});

test("what a reply used is counted, and a spent budget refuses requests", async () => {
  const { ask, relay, full, reports, entries, seen, close } = await start({
    answer: (_, response) => {
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify({
        type: "message",
        model: "claude-test",
        usage: { input_tokens: 7, output_tokens: 5 },
      }));
    },
  });
  assert.is((await ask({})).status, 200);
  await waitFor(() => entries().length > 0, { for: "it", timeoutMs: 1000 });
  const [{ model, input, output }] = entries() as [Entry];
  assert.equal({ model, input, output }, {
    model: "claude-test",
    input: 7,
    output: 5,
  });
  const events = reports.filter(({ kind }) => kind === "usage");
  assert.match(JSON.stringify(events), '"session":"claude/s"');
  const message = "The budget is spent";
  relay.setState({ ...full, usage: { ...usage, all: message } });
  const found = await ask({});
  assert.is(found.status, 402);
  assert.is(JSON.parse(found.text).error.message, message);
  assert.is(seen.length, 1);
  close();
});

test("a bearer is replaced, too, and each kind has its credential", async () => {
  const credentials = {
    key: "the-key",
    token: "the-token",
    login: "the-login",
  };
  for (
    const [kind, credential, sent] of [
      ["key", null, "the-key"],
      ["token", null, "the-token"],
      ["login", null, "the-login"],
      ["caller", "callers-key", "callers-key"],
      ["gateway", "callers-token", "callers-token"],
    ] as const
  ) {
    const { ask, seen, close } = await start({
      grant: { kind, credential, headers: [["X-Team", "secret"]] },
      state: { credentials },
    });
    const headers = { authorization: `Bearer ${placeholder}` };
    assert.is((await ask({ headers })).status, 200);
    const [found] = seen;
    assert.is(
      headerOf(found?.headers ?? [], "authorization"),
      `Bearer ${sent}`,
    );
    assert.is(headerOf(found?.headers ?? [], "x-team"), "secret");
    close();
  }
});

test("a worker cannot make the API refuse the login that it does not have", async () => {
  const bearer = `Bearer ${placeholder}`;
  for (const kind of ["login", "token"] as const) {
    const { ask, seen, reports, close } = await start({
      grant: { kind },
      state: { credentials: { key: null, token: "real", login: "real" } },
      answer: (request, response) => {
        const { authorization, "anthropic-beta": betas } = request.headers;
        const isValid = authorization === "Bearer real" &&
          String(betas).split(",").includes("oauth-2025-04-20");
        response.writeHead(isValid ? 200 : 401).end();
      },
    });
    for (
      const headers of [
        { "x-api-key": placeholder },
        { authorization: placeholder },
        { authorization: bearer, "x-api-key": placeholder },
      ] as Record<string, string>[]
    ) {
      assert.is((await ask({ headers })).status, 401);
    }
    assert.is(seen.length, 0);
    for (
      const headers of [
        { authorization: bearer },
        { authorization: bearer, "anthropic-beta": "one, two" },
        { authorization: bearer, connection: "authorization, anthropic-beta" },
      ] as Record<string, string>[]
    ) {
      assert.is((await ask({ headers })).status, 200, JSON.stringify(headers));
    }
    const betas = headerOf(seen[1]?.headers ?? [], "anthropic-beta");
    assert.is(betas, "one,two,oauth-2025-04-20");
    const anonymous = { method: "GET", path: "/", headers: {} };
    assert.is((await ask({ ...anonymous, anonymous: true })).status, 401);
    assert.is(seen.length, 4);
    assert.equal(reports.filter(({ kind }) => kind === "rejected"), []);
    close();
  }
});

test("a login that was just refreshed is not reported again", async () => {
  const { ask, relay, full, reports, close } = await start({
    grant: { kind: "login" },
    bounds: { refreshMs: 2000 },
    state: { credentials: { key: null, token: null, login: "old" } },
    answer: (_, response) => void response.writeHead(401).end(),
  });
  const rejected = () => reports.filter(({ kind }) => kind === "rejected");
  const headers = { authorization: `Bearer ${placeholder}` };
  const first = ask({ headers });
  await waitFor(() => rejected().length === 1, { for: "it", timeoutMs: 1000 });
  relay.setState({
    ...full,
    credentials: { key: null, token: null, login: "new" },
  });
  assert.is((await first).status, 403);
  assert.is((await ask({ headers })).status, 403);
  assert.is(rejected().length, 1);
  close();
});

test("only one credential of each form is accepted, and no cookie passed on", async () => {
  const { ask, begin, seen, close } = await start();
  for (const name of ["X-Api-Key", "Authorization"]) {
    const request = begin({ headers: { "x-api-key": placeholder } });
    request.setHeader(name, ["sk-ant-hal9000-x", placeholder]);
    request.end();
    const [{ statusCode }] = await once(request, "response");
    assert.is(statusCode, 400, name);
  }
  assert.is(seen.length, 0);
  assert.is((await ask({ headers: { cookie: "a=b" } })).status, 200);
  assert.not.match(seen[0]?.headers.join("\n") ?? "", /cookie/i);
  // The CLI sends the key of an apiKeyHelper in both.
  const headers = {
    "x-api-key": placeholder,
    authorization: `Bearer ${placeholder}`,
  };
  assert.is((await ask({ headers })).status, 200);
  assert.is(headerOf(seen[1]?.headers ?? [], "x-api-key"), real);
  assert.is(
    headerOf(seen[1]?.headers ?? [], "authorization"),
    `Bearer ${real}`,
  );
  close();
});

test("a connection serves one request after the other", async () => {
  const { open, entries, seen, close } = await start();
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  let opened = 0;
  Object.assign(agent, {
    createConnection: () => {
      opened++;
      return open(worker);
    },
  });
  for (const body of ["one", "two", "three"]) {
    const request = requestHttp({
      agent,
      method: "POST",
      path: "/v1/messages",
      headers: { "x-api-key": placeholder, "content-length": body.length },
    });
    request.flushHeaders();
    await sleep(20);
    request.end(body);
    const [response] = await once(request, "response") as [IncomingMessage];
    let text = "";
    for await (const chunk of response) text += chunk;
    assert.is(text, "reply");
  }
  assert.is(opened, 1);
  assert.equal(seen.map(({ body }) => String(body)), ["one", "two", "three"]);
  await waitFor(() => entries().length === 3, {
    for: "entries",
    timeoutMs: 1000,
  });
  agent.destroy();
  close();
});

const head = (...lines: string[]) =>
  [
    "POST /v1/messages HTTP/1.1",
    "Host: api.anthropic.com",
    `X-Api-Key: ${placeholder}`,
    ...lines,
    "",
    "",
  ].join("\r\n");

test("a reply without a body is finished, too", async () => {
  const { ask, entries, close } = await start({
    answer: ({ url }, response) => {
      response.writeHead(url === "/" ? 204 : 200, { "content-length": 0 })
        .end();
    },
  });
  assert.is((await ask({})).status, 200);
  for (const method of ["GET", "HEAD"]) {
    assert.is((await ask({ method, path: "/" })).status, 204);
  }
  await waitFor(() => entries().length === 3, {
    for: "entries",
    timeoutMs: 1000,
  });
  close();
});

test("requests that do not wait for the reply end their connection", async () => {
  const { open, entries, seen, ask, close } = await start({
    answer: (_, response) => void setTimeout(() => response.end("ok"), 300),
  });
  const socket = open(worker);
  socket.on("error", () => {});
  let isClosed = false;
  socket.on("close", () => isClosed = true);
  socket.write(head("Content-Length: 0").repeat(100));
  await waitFor(() => isClosed, { for: "its end", timeoutMs: 200 });
  await waitFor(() => entries().length > 0, { for: "it", timeoutMs: 1000 });
  await sleep(100);
  assert.is(entries().length, 1);
  assert.ok(seen.length <= 1, `${seen.length} requests`);
  assert.is((await ask({})).status, 200);
  close();
});

test("a connection without a whole request is closed", async () => {
  const { open, close } = await start({ bounds: { headMs: 200 } });
  const closed = ["", "P", head("Content-Length: 9").slice(0, 60)]
    .map(async (text) => {
      const socket = open(worker);
      socket.on("error", () => {});
      socket.on("data", () => {});
      socket.write(text);
      await once(socket, "close");
    });
  let count = 0;
  for (const one of closed) one.then(() => count++, () => count++);
  await waitFor(() => count === 3, { for: "their end", timeoutMs: 2000 });
  close();
});

test("connections that wait make room for others", async () => {
  for (
    const [bounds, from] of [
      [{ connections: 2 }, undefined],
      [{ perWorker: 2 }, worker],
    ] as const
  ) {
    const { open, ask, close } = await start({ bounds });
    const idle = [open(from), open(from)];
    let closed = 0;
    for (const socket of idle) {
      socket.on("error", () => {});
      socket.on("close", () => closed++);
    }
    await Promise.all(idle.map((socket) => once(socket, "secureConnect")));
    assert.is((await ask({})).status, 200);
    await waitFor(() => closed === 1, { for: "its end", timeoutMs: 1000 });
    for (const socket of idle) socket.destroy();
    close();
  }
});

test("a session has only so many requests at once", async () => {
  const answers: ServerResponse[] = [];
  const { ask, entries, close } = await start({
    bounds: { perWorker: 2 },
    answer: (_, response) => void answers.push(response),
  });
  const shared = {
    from: undefined,
    headers: { "x-api-key": "sk-ant-hal9000-shared" },
  };
  const asked = [ask(shared), ask(shared)];
  await waitFor(() => answers.length === 2, { for: "them", timeoutMs: 1000 });
  assert.is((await ask(shared)).status, 429);
  for (const answer of answers) answer.end();
  for (const one of asked) assert.is((await one).status, 200);
  await waitFor(() => entries().length === 3, { for: "it", timeoutMs: 1000 });
  const third = ask(shared);
  await waitFor(() => answers.length === 3, { for: "it", timeoutMs: 1000 });
  answers[2]?.end();
  assert.is((await third).status, 200);
  close();
});

test("a refusal reaches a client that is still sending", async () => {
  const { begin, close } = await start();
  const request = begin({ path: "/v1/files" });
  request.on("error", () => {});
  const chunk = Buffer.alloc(64 * 1024);
  let isEnded = false;
  request.on("response", () => isEnded = true);
  const replied = once(request, "response");
  for (let n = 0; n < 30 && !isEnded; n++) {
    request.write(chunk);
    await sleep(5);
  }
  const [response] = await Promise.race([
    replied,
    sleep(1000, [{ statusCode: 0 }], { ref: false }),
  ]) as [IncomingMessage];
  assert.is(response.statusCode, 403);
  request.destroy();
  close();
});

test("another session's placeholder is refused and logged", async () => {
  const { ask, seen, entries, close } = await start();
  const cases: Asked[] = [
    { headers: { "x-api-key": "sk-ant-hal9000-other" } },
    { headers: { "x-api-key": "sk-ant-api03-anothers" } },
    { headers: { authorization: "Bearer sk-ant-hal9000-shared" } },
    { from: undefined },
    { from: undefined, headers: { "x-api-key": "sk-ant-hal9000-unknown" } },
    { from: "d".repeat(64) },
  ];
  for (const asked of cases) {
    const { status, text } = await ask(asked);
    assert.is(status, 401, JSON.stringify(asked));
    assert.is(JSON.parse(text).error.type, "authentication_error");
  }
  const own = {
    from: undefined,
    headers: { "x-api-key": "sk-ant-hal9000-shared" },
  };
  assert.is((await ask(own)).status, 200);
  assert.is(seen.length, 1);
  await waitFor(() => entries().length === 7, {
    for: "entries",
    timeoutMs: 1000,
  });
  assert.equal(entries().map(({ status }) => status), [
    ...cases.map(() => 401),
    200,
  ]);
  assert.match(entries()[0]?.reason ?? "", "not the placeholder");
  assert.not.match(JSON.stringify(entries()), "sk-ant");
  close();
});

test("only parts of the API that create no credential are passed on", async () => {
  const { ask, seen, close } = await start();
  for (
    const [method, path] of [
      ["POST", "/api/oauth/claude_cli/create_api_key"],
      ["POST", "/v1/organizations/api_keys"],
      ["GET", "/v1/files"],
      ["POST", "/v1/oauth/token"],
      ["GET", "/v1/models/../organizations/api_keys"],
      ["GET", "/v1/models/%2e%2e/files"],
      ["DELETE", "/v1/messages"],
      ["GET", "http://evil.example/"],
    ] as const
  ) {
    const { status, text } = await ask({ method, path });
    assert.is(status, 403, path);
    assert.is(JSON.parse(text).error.type, "permission_error");
  }
  assert.is(seen.length, 0);
  for (const path of ["/api/oauth/profile", "/v1/models", "/"]) {
    assert.is((await ask({ method: "GET", path })).status, 200, path);
  }
  close();
});

test("a stream arrives as it is sent, and a client that leaves ends it", async () => {
  let gone = 0;
  let sent: ServerResponse | undefined;
  const { begin, close } = await start({
    answer: (_, response) => {
      sent = response;
      response.on("close", () => gone++);
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write("event: one\n\n");
    },
  });
  const request = begin({});
  request.end("x");
  const [response] = await once(request, "response") as [IncomingMessage];
  const [first] = await once(response, "data");
  assert.is(String(first), "event: one\n\n");
  sent?.write("event: two\n\n");
  const [second] = await once(response, "data");
  assert.is(String(second), "event: two\n\n");
  assert.is(gone, 0);
  request.destroy();
  await waitFor(() => gone === 1, { for: "the end", timeoutMs: 1000 });
  close();
});

test("the head of a reply does not wait for its body", async () => {
  let answered: ServerResponse | undefined;
  const { begin, close } = await start({
    answer: (_, response) => {
      answered = response;
      response.writeHead(200).flushHeaders();
    },
  });
  const request = begin({});
  request.end("x");
  const late = sleep(2000, undefined, { ref: false });
  const [head] = await Promise.race([
    once(request, "response"),
    late.then(() => []),
  ]);
  assert.ok(head, "no head");
  answered?.end();
  close();
});

test("a slow reader slows the API down", async () => {
  const chunks = 1600; // 100 MiB
  let before = -1;
  let isOpen = false;
  let written = 0;
  const { openRaw, close } = await start({
    answer: async (_, response) => {
      const chunk = Buffer.alloc(64 * 1024);
      response.writeHead(200, { connection: "close" });
      while (!response.destroyed && written < chunks) {
        written++;
        if (!response.write(chunk)) await once(response, "drain");
      }
      response.end();
    },
  });
  // Deno's TLS client reads all there is, so something before it has to stop reading.
  const raw = openRaw(worker);
  let read = 0;
  const valve = createNetServer((client) => {
    client.pipe(raw);
    raw.on("data", (chunk) => {
      read += chunk.length;
      client.write(chunk);
      if (read > 1024 ** 2 && !isOpen) raw.pause();
    });
    raw.on("end", () => client.end());
  }).listen(0, "127.0.0.1");
  await once(valve, "listening");
  const { port } = valve.address() as AddressInfo;
  const socket = connectTls({
    port,
    host: "127.0.0.1",
    servername: "api.anthropic.com",
    ca: authorities.map(({ cert }) => cert),
  });
  let bytes = 0;
  socket.on("data", (chunk) => bytes += chunk.length);
  socket.write([
    "POST /v1/messages HTTP/1.1",
    "Host: api.anthropic.com",
    `X-Api-Key: ${placeholder}`,
    "Content-Length: 0",
    "Connection: close",
    "",
    "",
  ].join("\r\n"));
  await waitFor(() => {
    const isStill = written > 0 && written === before;
    before = written;
    return isStill;
  }, { for: "the API to wait", timeoutMs: 5000, everyMs: 300 });
  assert.ok(written < chunks / 2, `${written} chunks of 64 KiB`);
  isOpen = true;
  raw.resume();
  await waitFor(() => bytes > chunks * 64 * 1024, {
    for: "the whole reply",
    timeoutMs: 10_000,
  });
  valve.close();
  close();
});

test("a refused login is refreshed once, which the client does not see", async () => {
  let current = "old";
  const { ask, relay, full, reports, seen, close } = await start({
    grant: { kind: "login" },
    bounds: { freshMs: 0, refreshMs: 2000 },
    state: { credentials: { key: null, token: null, login: "old" } },
    answer: (request, response) => {
      const isOld = request.headers.authorization === "Bearer old";
      response.writeHead(isOld ? 401 : 200).end(isOld ? "no" : "reply");
    },
  });
  const asking = [1, 2, 3].map((n) =>
    ask({
      headers: { authorization: `Bearer ${placeholder}` },
      body: `prompt ${n}`,
    })
  );
  const rejected = () => reports.filter(({ kind }) => kind === "rejected");
  await waitFor(() => rejected().length === 3, { for: "it", timeoutMs: 1000 });
  const digest = createHash("sha256").update(current).digest("hex");
  assert.equal(rejected()[0], { kind: "rejected", digest });
  current = "new";
  relay.setState({
    ...full,
    credentials: { key: null, token: null, login: current },
  });
  for (const { status, text } of await Promise.all(asking)) {
    assert.is(status, 200);
    assert.is(text, "reply");
  }
  const bodies = seen.slice(3).map(({ body }) => body.toString()).sort();
  assert.equal(bodies, ["prompt 1", "prompt 2", "prompt 3"]);
  close();
});

test("a login that cannot be refreshed does not look like a logout", async () => {
  const { ask, close } = await start({
    grant: { kind: "login" },
    bounds: { freshMs: 0, refreshMs: 50 },
    state: { credentials: { key: null, token: null, login: "old" } },
    answer: (_, response) => void response.writeHead(401).end("no"),
  });
  const headers = { authorization: `Bearer ${placeholder}` };
  assert.is((await ask({ headers })).status, 503);
  close();
  const without = await start({
    grant: { kind: "login" },
    state: { credentials: { key: null, token: null, login: null } },
  });
  const found = await without.ask({ headers });
  assert.is(found.status, 403);
  assert.match(JSON.parse(found.text).error.message, "claudy login");
  without.close();
});

test("an API that is down or sends garbage gives an error in the API's form", async () => {
  const raw = (act: (socket: Socket) => void) =>
    createNetServer((socket) => {
      socket.on("error", () => {});
      socket.once("data", () => act(socket));
    }).listen(0, "127.0.0.1");
  const servers = {
    garbage: raw((socket) => socket.end("\0\x01\x02 garbage\r\n\r\n")),
    closing: raw((socket) => socket.destroy()),
    "huge head": raw((socket) =>
      socket.write(`HTTP/1.1 200 OK\r\nX: ${"x".repeat(1024 ** 2)}\r\n\r\n`)
    ),
    informing: raw((socket) =>
      socket.write("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100))
    ),
    "upgrading by surprise": raw((socket) =>
      socket.end(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
      )
    ),
    upgrading: raw((socket) =>
      socket.end("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
    ),
  };
  await sleep(20); // until they listen
  for (const [what, server] of Object.entries(servers)) {
    const { port } = server.address() as AddressInfo;
    const { ask, entries, close } = await start({
      grant: { baseUrl: `http://127.0.0.1:${port}` },
    });
    const { status, text } = await ask({ body: "x" });
    assert.is(status, 502, what);
    assert.is(JSON.parse(text).type, "error");
    // Details may name the caller's gateway or proxy.
    const { message } = JSON.parse(text).error;
    assert.match(
      message,
      /^HAL-9000's relay cannot reach the API(: [A-Z_]+)?$/,
    );
    await waitFor(() => entries().length > 0, { for: what, timeoutMs: 1000 });
    assert.match(entries()[0]?.reason ?? "", /^[^:]+: ./);
    server.close();
    close();
  }
  const { ask, close } = await start({
    grant: { baseUrl: "http://127.0.0.1:1" },
  });
  const { status, text } = await ask({ body: "x" });
  assert.is(status, 502);
  assert.match(text, "ECONNREFUSED");
  close();
});

test("a reply that is cut off is cut off for the client, and others go on", async () => {
  const { begin, ask, close } = await start({
    answer: (request, response) => {
      if (request.headers["x-cut"] === undefined) {
        return void response.end("ok");
      }
      response.writeHead(200);
      response.write("some"); // in chunks
      setTimeout(() => response.socket?.destroy(), 50);
    },
  });
  const request = begin({ headers: { "x-cut": "1" } });
  request.on("error", () => {});
  request.end("x");
  const [response] = await once(request, "response") as [IncomingMessage];
  let text = "";
  let failed = false;
  try {
    for await (const chunk of response) text += chunk;
  } catch {
    failed = true;
  }
  assert.is(text, "some");
  assert.ok(failed);
  assert.is((await ask({})).text, "ok");
  close();
});

test("the authority is private, and has a successor before it expires", async () => {
  const path = home.relayAuthorities;
  assert.is(statSync(path).mode & 0o777, 0o600);
  const before = readFileSync(path, "utf8");
  await ensureAuthority(instance);
  assert.is(readFileSync(path, "utf8"), before);
  const yearMs = 365 * 24 * 60 * 60_000;
  const soon = Date.now() + 4.5 * yearMs;
  await ensureAuthority(instance, soon);
  const both = readAuthorities(home);
  assert.is(both.length, 2);
  assert.equal(both[0], authorities[0]);
  // Sessions trust the first until it is about to expire.
  const { X509Certificate } = await import("node:crypto");
  const signerAt = async (now: number) => {
    const cert = new X509Certificate((await newLeaf(both, now)).cert);
    return both.findIndex(({ cert: one }) =>
      cert.verify(new X509Certificate(one).publicKey)
    );
  };
  assert.is(await signerAt(soon), 0);
  assert.is(await signerAt(Date.now() + 4.95 * yearMs), 1);
  await ensureAuthority(instance, Date.now() + 5.1 * yearMs);
  assert.equal(readAuthorities(home), both.slice(1));
});

const lineOf = (entry: Partial<Entry>) =>
  `${JSON.stringify({ kind: "entry", entry })}\n`;

test("the parent goes on when it could not write or read for a while", async () => {
  const { instance, log, told, end } = fakeInstance();
  const { home } = instance;
  mkdirSync(home.relayLog, { recursive: true });
  mkdirSync(home.relayAuthorities, { recursive: true });
  const input = new PassThrough();
  const output = new PassThrough();
  let states = "";
  input.on("data", (chunk) => states += chunk);
  relayChild(instance, new LoginRefresh(), log).attend?.(input, output);
  const entry: Entry = {
    time: new Date().toISOString(),
    session: null,
    worker: null,
    method: "GET",
    path: "/1",
    status: 200,
    ms: 1,
    bytesUp: 0,
    bytesDown: 0,
  };
  output.write(lineOf(entry) + lineOf(entry));
  await waitFor(() => told.length >= 2, { for: "it", timeoutMs: 5000 });
  await sleep(1200);
  assert.is(told.length, 2, told.join("\n"));
  assert.is(states, "");
  rmdirSync(home.relayLog);
  rmdirSync(home.relayAuthorities);
  output.write(lineOf({ ...entry, path: "/2" }));
  await waitFor(() => existsSync(home.relayLog) && states !== "", {
    for: "both",
    timeoutMs: 4000,
  });
  assert.match(readFileSync(home.relayLog, "utf8"), '"path":"/2"');
  input.destroy();
  output.destroy();
  await sleep(200);
  end();
});

test.run();
