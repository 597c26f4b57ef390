// The relay and logins that expire.

import { createHash } from "node:crypto";
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

test.run();
