// The relay and logins that expire.

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { waitFor } from "../../lib/std/wait.ts";
import { headerOf, placeholder, start } from "../helper/relay.ts";

const test = suite("relay-login");

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
  await waitFor(() => rejected().length === 1, {
    for: "it",
    timeoutMs: 10_000,
  });
  relay.setState({
    ...full,
    credentials: { key: null, token: null, login: "new" },
  });
  assert.is((await first).status, 403);
  assert.is((await ask({ headers })).status, 403);
  assert.is(rejected().length, 1);
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
  await waitFor(() => rejected().length === 3, {
    for: "it",
    timeoutMs: 10_000,
  });
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

/** An API that refuses the old token before it has read the body. */
const refusingEarly = {
  grant: { kind: "login" },
  state: { credentials: { key: null, token: null, login: "old" } },
  early: (request: IncomingMessage, response: ServerResponse) => {
    if (request.headers.authorization !== "Bearer old") return false;
    response.writeHead(401).end("no");
    return true;
  },
} as const;

test("a login that is refused before the body has arrived is refreshed, too", async () => {
  for (const isWhole of [true, false]) {
    const { begin, relay, full, reports, seen, close } = await start({
      ...refusingEarly,
      bounds: { freshMs: 0, refreshMs: 10_000 },
    });
    const parts = ["a", "b", "c"].map((text) => text.repeat(300_000));
    const request = begin({
      headers: {
        authorization: `Bearer ${placeholder}`,
        "content-length": "900000",
      },
    });
    const replied = once(request, "response");
    request.write(parts[0]);
    await waitFor(() => reports.some(({ kind }) => kind === "rejected"), {
      for: "the refusal",
      timeoutMs: 10_000,
    });
    const renew = () =>
      relay.setState({
        ...full,
        credentials: { key: null, token: null, login: "new" },
      });
    if (!isWhole) renew();
    for (const part of parts.slice(1)) {
      request.write(part);
      await sleep(20);
    }
    request.end();
    if (isWhole) {
      await sleep(50);
      renew();
    }
    const [response] = await Promise.race([
      replied,
      sleep(5000, [undefined], { ref: false }),
    ]) as [IncomingMessage | undefined];
    assert.is(response?.statusCode, 200);
    assert.is(seen.length, 1);
    assert.ok(seen[0]?.body.equals(Buffer.from(parts.join(""))));
    close();
  }
});

test("bodies are kept until the reply begins, and only so many bytes of all", async () => {
  let isExpired = false;
  const held: ServerResponse[] = [];
  const { ask, begin, relay, full, reports, close } = await start({
    grant: { kind: "login" },
    bounds: {
      freshMs: 0,
      refreshMs: 10_000,
      keptBytes: 100_000,
      keptBytesOfAll: 150_000,
    },
    state: { credentials: { key: null, token: null, login: "old" } },
    answer: (request, response) => {
      if (isExpired && request.headers.authorization === "Bearer old") {
        return response.writeHead(401).end();
      }
      if (request.headers["x-held"]) {
        response.writeHead(200).flushHeaders();
        return held.push(response);
      }
      response.end("reply");
    },
  });
  const asked = {
    headers: { authorization: `Bearer ${placeholder}` },
    body: "x".repeat(90_000),
  };
  // One reply goes on for long: its body is no longer kept.
  const streamed = begin({ headers: { ...asked.headers, "x-held": "1" } });
  streamed.end(asked.body);
  await once(streamed, "response");
  isExpired = true;
  const both = [ask(asked), ask(asked)];
  const rejected = () => reports.filter(({ kind }) => kind === "rejected");
  await waitFor(() => rejected().length === 2, {
    for: "both refusals",
    timeoutMs: 10_000,
  });
  relay.setState({
    ...full,
    credentials: { key: null, token: null, login: "new" },
  });
  const statuses = (await Promise.all(both)).map(({ status }) => status);
  assert.equal(statuses.sort(), [200, 503]);
  // Their bytes are free again.
  relay.setState({
    ...full,
    credentials: { key: null, token: null, login: "old" },
  });
  const third = ask(asked);
  await waitFor(() => rejected().length === 3, {
    for: "the third refusal",
    timeoutMs: 10_000,
  });
  relay.setState({
    ...full,
    credentials: { key: null, token: null, login: "new" },
  });
  assert.is((await third).status, 200);
  for (const response of held) response.end();
  close();
});

test.run();
