// The relay with an API of the test: whose requests it passes on.

import { Buffer } from "node:buffer";
import { once } from "node:events";
import {
  Agent,
  type IncomingMessage,
  request as requestHttp,
  type ServerResponse,
} from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Entry } from "../../lib/relay/entry.ts";
import type { Grant } from "../../lib/relay/grant.ts";
import { mayUse } from "../../lib/relay/relay/paths.ts";
import { waitFor } from "../../lib/std/wait.ts";
import {
  type Asked,
  grantOf,
  headerOf,
  placeholder,
  real,
  start,
  usage,
  worker,
} from "../helper/relay.ts";

const test = suite("relay");

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
    timeoutMs: 10_000,
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
  await waitFor(() => entries().length > 0, { for: "it", timeoutMs: 10_000 });
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
    timeoutMs: 10_000,
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
    timeoutMs: 10_000,
  });
  close();
});

test("requests that do not wait for the reply end their connection", async () => {
  let isHeld = true;
  const { open, entries, seen, ask, close } = await start({
    answer: (_, response) => isHeld || response.end("ok"),
  });
  const socket = open(worker);
  socket.on("error", () => {});
  let isClosed = false;
  socket.on("close", () => isClosed = true);
  socket.write(head("Content-Length: 0").repeat(100));
  await waitFor(() => isClosed, { for: "its end", timeoutMs: 10_000 });
  await waitFor(() => entries().length > 0, { for: "it", timeoutMs: 10_000 });
  await sleep(100);
  assert.is(entries().length, 1);
  assert.ok(seen.length <= 1, `${seen.length} requests`);
  isHeld = false;
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
    await waitFor(() => closed === 1, { for: "its end", timeoutMs: 10_000 });
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
  await waitFor(() => answers.length === 2, { for: "them", timeoutMs: 10_000 });
  assert.is((await ask(shared)).status, 429);
  for (const answer of answers) answer.end();
  for (const one of asked) assert.is((await one).status, 200);
  await waitFor(() => entries().length === 3, { for: "it", timeoutMs: 10_000 });
  const third = ask(shared);
  await waitFor(() => answers.length === 3, { for: "it", timeoutMs: 10_000 });
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
    timeoutMs: 10_000,
  });
  assert.equal(entries().map(({ status }) => status), [
    ...cases.map(() => 401),
    200,
  ]);
  assert.match(entries()[0]?.reason ?? "", "not the placeholder");
  assert.not.match(JSON.stringify(entries()), "sk-ant");
  close();
});

test("a new placeholder is waited for, which the relay may not know yet", async () => {
  for (const from of [worker, undefined]) {
    const { ask, relay, full, close } = await start({
      bounds: { unknownMs: 20_000 },
    });
    const home = from ? "claude/s" : "claude/shared";
    const placeholder = "sk-ant-hal9000-new";
    const asking = ask({ from, headers: { "x-api-key": placeholder } });
    await sleep(200);
    relay.setState(full); // something else has changed
    const grant = { ...full.grants[home] as Grant, placeholder };
    relay.setState({ ...full, grants: { ...full.grants, [home]: grant } });
    assert.is((await asking).status, 200);
    close();
  }
});

test("requests with unknown placeholders leave connections to others", async () => {
  const { open, ask, close } = await start({
    bounds: { connections: 10, perWorker: 2, unknownMs: 5000 },
  });
  const text = head("Content-Length: 0")
    .replace(placeholder, "sk-ant-hal9000-unknown");
  for (let n = 0; n < 10; n++) open(undefined).write(text);
  await sleep(300);
  assert.is((await ask({})).status, 200);
  close();
});

test("sessions of the shared network cannot fill the log", async () => {
  const { ask, relay, full, entries, close } = await start({
    bounds: { entries: 2, entriesPerSecond: 0.001 },
  });
  for (let count = 0; count < 5; count++) {
    const headers = { "x-api-key": "sk-ant-hal9000-shared" };
    assert.is((await ask({ from: undefined, headers })).status, 200);
    relay.setState(full);
  }
  assert.is((await ask()).status, 200);
  await waitFor(() => entries().some(({ session }) => session === "claude/s"), {
    for: "the entry of another session",
    timeoutMs: 10_000,
  });
  assert.is(entries().length, 3);
  close();
});

test("all of the API is passed on with credentials of the session's own, if nothing is added", async () => {
  const headers = { "x-api-key": "sk-ant-api03-inside" };
  const create = { path: "/api/oauth/claude_cli/create_api_key", headers };
  // As in all tests, with a base URL.
  const added = await start({ grant: { kind: "own" } });
  assert.is((await added.ask(create)).status, 403);
  added.close();
  for (
    const [change, allowed] of [
      [{}, true],
      [{ kind: "key" }, false],
      [{ headers: [["X-Auth", "secret"]] }, false],
      [{ baseUrl: "https://gateway.example" }, false],
    ] as const
  ) {
    const grant = grantOf({ kind: "own", ...change } as Partial<Grant>);
    assert.is(mayUse(grant, "POST", create.path), allowed);
    assert.is(mayUse(grant, "GET", "http://evil.example/"), false);
  }
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
      ["GET", "/api/claude_code/teams/secrets"],
      ["GET", "/api/claude_cli/bootstrap/keys"],
      ["POST", "/api/claude_code/settings"],
      ["POST", "/api/claude_code/metrics/x"],
      ["POST", "/api/event_logging"],
      ["GET", "/api/event_logging/v2/batch"],
      ["GET", "http://evil.example/"],
    ] as const
  ) {
    const { status, text } = await ask({ method, path });
    assert.is(status, 403, path);
    assert.is(JSON.parse(text).error.type, "permission_error");
  }
  assert.is(seen.length, 0);
  for (
    const path of [
      "/",
      "/v1/models",
      "/v1/models/claude-opus-5-5",
      "/api/oauth/profile",
      "/api/claude_cli/bootstrap?entrypoint=cli",
      "/api/claude_code/settings",
      "/api/claude_code/skills",
      "/api/claude_code/policy_limits",
      "/api/claude_code/notification/preferences",
      "/api/claude_code/organizations/metrics_enabled",
    ]
  ) {
    assert.is((await ask({ method: "GET", path })).status, 200, path);
  }
  for (
    const path of ["/api/event_logging/v2/batch", "/api/claude_code/metrics"]
  ) {
    assert.is((await ask({ path })).status, 200, path);
  }
  close();
});

test.run();
