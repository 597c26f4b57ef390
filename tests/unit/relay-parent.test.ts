// The relay's part in the parent.

import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import {
  Agent,
  createServer as createHttpServer,
  type IncomingMessage,
  request as requestHttp,
} from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { readAuthorities } from "../../lib/relay/authority.ts";
import { ensureAuthority, newLeaf } from "../../lib/relay/certificates.ts";
import type { Entry } from "../../lib/relay/entry.ts";
import { defaultBounds } from "../../lib/relay/relay/bounds.ts";
import { Relay } from "../../lib/relay/relay/relay.ts";
import { stateSchema } from "../../lib/relay/state.ts";
import {
  keepLoginFresh,
  loginFile,
  LoginRefresh,
} from "../../lib/home/login.ts";
import { relayChild } from "../../lib/parent/relay.ts";
import { relayAnswers } from "../../lib/relay/answers.ts";
import { parseJson } from "../../lib/std/json.ts";
import { linesOf } from "../../lib/std/lines.ts";
import { createMeter } from "../../lib/usage/meter.ts";
import { waitFor } from "../../lib/std/wait.ts";
import { fakeInstance } from "../helper/fake-engine.ts";
import { addSession, authorities, home, instance } from "../helper/relay.ts";

const test = suite("relay-parent");

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
  rmSync(home.relayAuthorities);
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

const sessions = 20;
const lifetimes = 24;
/** Requests that the API answers before the token expires. */
const perLifetime = 40;

test("20 sessions outlive 24 tokens, and their clients see none of it", async () => {
  const { instance, log, told, end } = fakeInstance();
  rmSync(instance.home.relayAuthorities);
  const { home } = instance;
  let current = 0;
  let answered = 0;
  const refused: number[] = [];
  const api = createHttpServer(async (request, response) => {
    for await (const _ of request);
    const used = Number(
      /access-(\d+)$/.exec(request.headers.authorization ?? "")?.[1],
    );
    if (used === current && ++answered % perLifetime === 0) current++;
    else if (used !== current) {
      refused.push(used);
      return void response.writeHead(401).end();
    }
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write("event: ping\n\n");
    setTimeout(() => response.end("event: end\n\n"), 5);
  }).listen(0, "127.0.0.1");
  await once(api, "listening");
  const { port } = api.address() as AddressInfo;
  // The token endpoint: each refresh token can be used once.
  const given: string[] = [];
  const { fetch } = globalThis;
  globalThis.fetch = ((_: string, { body }: RequestInit) => {
    const { refresh_token: token } = JSON.parse(String(body));
    const isNext = token === `refresh-${given.length}`;
    given.push(token);
    const next = given.length;
    return Promise.resolve(
      isNext
        ? Response.json({
          access_token: `access-${next}`,
          refresh_token: `refresh-${next}`,
          expires_in: 3600,
        })
        : new Response("", { status: 400 }),
    );
  }) as typeof globalThis.fetch;
  const claudeAiOauth = {
    accessToken: "access-0",
    refreshToken: "refresh-0",
    expiresAt: Date.now() + 3_600_000,
  };
  mkdirSync(home.login, { recursive: true });
  writeFileSync(
    join(home.login, loginFile),
    JSON.stringify({ claudeAiOauth }),
  );
  const names = Array.from({ length: sessions }, (_, n) => `s${n}`);
  const baseUrl = `http://127.0.0.1:${port}`;
  const clients = names.map((name) =>
    addSession(instance, name, { kind: "login", baseUrl })
  );
  // A clock that is fast enough for a refresh at any time.
  const early = new LoginRefresh(() => performance.now() * 1e6);
  const stop = new AbortController();
  const fresh = keepLoginFresh(instance, early, stop.signal, log);
  const [input, output] = [new PassThrough(), new PassThrough()];
  const relay = new Relay({
    bounds: { ...defaultBounds, freshMs: 0 },
    report: (report) => output.write(`${JSON.stringify(report)}\n`),
    meter: createMeter((event) =>
      output.write(`${JSON.stringify({ kind: "usage", event })}\n`)
    ),
  });
  relayChild(instance, early, log).attend?.(input, output);
  const feeding = (async () => {
    for await (const line of linesOf(input, 1024 ** 2)) {
      const state = parseJson(stateSchema, line);
      if (state) relay.setState(state);
    }
  })();
  const server = relay.server().listen(home.relayService);
  await once(server, "listening");
  await waitFor(() => relayAnswers(instance), {
    for: "the relay",
    timeoutMs: 10_000,
  });
  const statuses: (number | undefined)[] = [];
  const talk = async ({ connect, placeholder }: (typeof clients)[number]) => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    Object.assign(agent, { createConnection: connect });
    while (given.length < lifetimes) {
      const request = requestHttp({
        agent,
        method: "POST",
        path: "/v1/messages?beta=true",
        headers: { authorization: `Bearer ${placeholder}` },
      });
      request.end(`prompt of ${placeholder}`);
      const [response] = await once(request, "response") as [IncomingMessage];
      statuses.push(response.statusCode);
      for await (const _ of response);
    }
    agent.destroy();
  };
  await Promise.all(clients.map(talk));
  assert.equal(statuses.filter((status) => status !== 200), []);
  assert.ok(statuses.length >= lifetimes * perLifetime);
  assert.equal(given, given.map((_, n) => `refresh-${n}`));
  // Only the token that had just expired, at most once by each session.
  assert.ok(refused.length >= lifetimes);
  assert.ok(refused.length <= lifetimes * sessions, String(refused.length));
  assert.not.match(told.join("\n"), "Log in again");
  stop.abort();
  await fresh;
  globalThis.fetch = fetch;
  input.destroy();
  output.destroy();
  await feeding.catch(() => {});
  server.close();
  api.closeAllConnections();
  api.close();
  await sleep(200);
  end();
});

test.run();
