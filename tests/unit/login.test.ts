// Refreshing the instance's login, with a fake token endpoint.

import {
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  forgetCredentials,
  layOutCredentials,
} from "../../lib/home/credentials.ts";
import {
  isLoggedIn,
  keepLoginFresh,
  LoginRefresh,
} from "../../lib/home/login.ts";
import type { Docker } from "../../lib/docker/docker.ts";
import { label } from "../../lib/instance/labels.ts";
import {
  listSecrets,
  removeSecret,
  setSecret,
} from "../../lib/home/named-secrets.ts";
import { readGrants } from "../../lib/relay/grant.ts";
import { renewCredentials } from "../../lib/session/start.ts";
import { waitFor } from "../../lib/std/wait.ts";
import { type FakeInstance, fakeInstance } from "../helper/fake-engine.ts";

interface Context extends FakeInstance {
  /** The requests to the endpoint. */
  asked: { url: string; type: string; body: Record<string, unknown> }[];
  answer: { status: number; body: unknown };
  claudeHome: string;
  fetch: typeof fetch;
}

const test = suite<Context>("login");

test.before.each((context) => {
  Object.assign(context, fakeInstance());
  const { instance, root } = context;
  mkdirSync(instance.home.login);
  context.claudeHome = join(root, "claude-home");
  mkdirSync(context.claudeHome);
  context.asked = [];
  context.answer = { status: 200, body: {} };
  context.fetch = globalThis.fetch;
  globalThis.fetch = ((url: string, request: RequestInit) => {
    const headers = request.headers as Record<string, string>;
    const body = JSON.parse(String(request.body));
    context.asked.push({ url, type: headers["content-type"] ?? "", body });
    const { status, body: text } = context.answer;
    return Promise.resolve(new Response(JSON.stringify(text), { status }));
  }) as typeof fetch;
});
test.after.each(({ end, fetch }) => {
  globalThis.fetch = fetch;
  end();
});

function logIn({ instance }: Context, expiresAt: number): void {
  const login = {
    claudeAiOauth: {
      accessToken: "access-1",
      refreshToken: "refresh-1",
      expiresAt,
      scopes: ["a", "b"],
    },
  };
  const path = join(instance.home.login, ".credentials.json");
  writeFileSync(path, JSON.stringify(login));
}

const published = ({ instance }: Context) =>
  join(instance.home.credentials, ".credentials.json");

const seen = (context: Context) =>
  existsSync(published(context))
    ? JSON.parse(readFileSync(published(context), "utf8")).claudeAiOauth
    : undefined;

/** Refreshes the login until `until` returns true. */
async function keep(
  context: Context,
  until: () => unknown,
  early = new LoginRefresh(),
): Promise<void> {
  const stop = new AbortController();
  const kept = keepLoginFresh(
    context.instance,
    early,
    stop.signal,
    context.log,
  );
  try {
    await waitFor(until, { for: "the login", timeoutMs: 5000 });
  } finally {
    stop.abort();
    await kept;
  }
}

const hourMs = 60 * 60_000;

test("workers see the current login without the refresh token", async (context) => {
  logIn(context, Date.now() + hourMs);
  await keep(context, () => seen(context));
  assert.is(seen(context).accessToken, "access-1");
  assert.not.match(readFileSync(published(context), "utf8"), /refresh-1/);
  assert.is(statSync(published(context)).mode & 0o777, 0o644);
  assert.equal(context.asked, []);
});

test("refreshes a login that expires soon, and stores the new refresh token", async (context) => {
  logIn(context, Date.now() + 60_000);
  context.answer.body = {
    access_token: "access-2",
    refresh_token: "refresh-2",
    expires_in: 3600,
  };
  await keep(context, () => seen(context)?.accessToken === "access-2");
  const [request] = context.asked;
  assert.match(request?.url ?? "", /^https:\/\/platform\.claude\.com\//);
  assert.is(request?.type, "application/json");
  assert.is(request?.body["grant_type"], "refresh_token");
  assert.is(request?.body["refresh_token"], "refresh-1");
  assert.is(request?.body["scope"], "a b");
  const path = join(context.instance.home.login, ".credentials.json");
  const { claudeAiOauth } = JSON.parse(readFileSync(path, "utf8"));
  assert.is(claudeAiOauth.refreshToken, "refresh-2");
  const leftMs = claudeAiOauth.expiresAt - Date.now();
  assert.ok(leftMs > 3_500_000 && leftMs <= 3_600_000);
  assert.is(context.asked.length, 1);
  assert.equal(context.told, ["Refreshed the login"]);
});

test("withdraws a refused login from workers, and does not retry it", async (context) => {
  logIn(context, Date.now());
  context.answer = { status: 400, body: { error: "refresh-1 is used" } };
  await keep(context, () => context.told.length > 0);
  assert.is(seen(context), undefined);
  assert.is(context.asked.length, 1);
  assert.match(context.told[0] ?? "", /^Log in again with claudy login/);
  assert.not.match(context.told.join(), /refresh-1/);
});

test("keeps the login if the endpoint fails", async (context) => {
  logIn(context, Date.now());
  context.answer = { status: 500, body: {} };
  await keep(context, () => context.told.length > 0);
  assert.is(seen(context).accessToken, "access-1");
  assert.is(
    context.told[0],
    "Cannot refresh the login: the server returned HTTP 500; retrying in 2000 ms",
  );
});

test("keeps the login if there were too many requests", async (context) => {
  logIn(context, Date.now());
  context.answer = { status: 429, body: {} };
  await keep(context, () => context.told.length > 0);
  assert.is(seen(context).accessToken, "access-1");
  assert.match(context.told[0] ?? "", /HTTP 429; retrying/);
});

test("refreshes a refused login early, but not again soon after", async (context) => {
  logIn(context, Date.now() + hourMs);
  let now = 0;
  const early = new LoginRefresh(() => now);
  const refreshed = (n: number) => {
    context.answer.body = {
      access_token: `access-${n}`,
      refresh_token: `refresh-${n}`,
      expires_in: 3600,
    };
  };
  const login = () => seen(context)?.accessToken;
  refreshed(2);
  early.refuse("access-1");
  await keep(context, () => login() === "access-2", early);
  refreshed(3);
  early.refuse("access-2");
  let rounds = 0;
  await keep(context, () => rounds++ > 5, early);
  assert.is(login(), "access-2");
  assert.is(context.asked.length, 1);
  now += 10 * 60_000;
  await keep(context, () => login() === "access-3", early);
});

test("withdraws a removed login from workers", async (context) => {
  const { instance } = context;
  logIn(context, Date.now() + hourMs);
  let removed = false;
  await keep(context, () => {
    if (!seen(context)) return removed;
    rmSync(instance.home.login, { recursive: true, force: true });
    removed = true;
    return false;
  });
  assert.not(isLoggedIn(instance.home));
});

test("a session gets the stored key as a file readable only by its user", (context) => {
  const { instance, claudeHome } = context;
  const lay = (env = {}) =>
    layOutCredentials(instance, claudeHome, instance.owner, env);
  assert.is(lay().apiKeyHelper, undefined);
  writeFileSync(instance.home.anthropicKey, "sk-kept");
  const { apiKeyHelper, env, variables } = lay();
  const path = join(claudeHome, ".anthropic_key");
  assert.is(readFileSync(path, "utf8"), "sk-kept");
  assert.is(statSync(path).mode & 0o777, 0o400);
  assert.is(apiKeyHelper, "cat /home/claude/.claude/.anthropic_key");
  assert.equal([env, variables], [{}, {}]);
  rmSync(instance.home.anthropicKey);
  lay({ ANTHROPIC_API_KEY: "sk-caller" });
  assert.is(readFileSync(path, "utf8"), "sk-caller");
  // If opened without a key, the session keeps its last one.
  lay();
  assert.is(readFileSync(path, "utf8"), "sk-caller");
  writeFileSync(instance.home.claudeToken, "token");
  const token = lay();
  assert.not(existsSync(path));
  assert.equal(token.variables, { CLAUDE_CODE_OAUTH_TOKEN: "token" });
  assert.is(readFileSync(join(claudeHome, ".oauth_token"), "utf8"), "token");
});

test("attaching with a cloud provider or a local gateway leaves a relayed session its grant", (context) => {
  const { instance, claudeHome } = context;
  writeFileSync(instance.home.anthropicKey, "sk-kept");
  const container = {
    Name: "/talk",
    Config: { Labels: { [label.relay]: "on" }, Env: [] },
    HostConfig: { NetworkMode: "none" },
  } as unknown as Docker.ContainerInspectInfo;
  const place = { claudeHome, owner: instance.owner };
  const renew = (env: NodeJS.ProcessEnv) =>
    renewCredentials(instance, place, { container, env });
  const key = () => readFileSync(join(claudeHome, ".anthropic_key"), "utf8");
  renew({});
  const placeholder = key();
  assert.match(placeholder, /^sk-ant-hal9000-/);
  for (
    const env of [
      { CLAUDE_CODE_USE_BEDROCK: "1" },
      { ANTHROPIC_BASE_URL: "http://127.0.0.1:9" },
    ]
  ) {
    assert.equal(renew(env).env, {});
    assert.is(key(), placeholder);
    assert.is(readGrants(instance)[0]?.placeholder, placeholder);
  }
});

test("a session of a logged-in instance gets the path of the login", (context) => {
  const { instance, claudeHome } = context;
  logIn(context, Date.now() + hourMs);
  const { env } = layOutCredentials(instance, claudeHome, instance.owner, {});
  assert.equal(env, {
    CLAUDE_SECURESTORAGE_CONFIG_DIR: "/run/hal9000/credentials",
  });
});

test("a session gets the current secrets", (context) => {
  const { instance, claudeHome } = context;
  const lay = () =>
    layOutCredentials(instance, claudeHome, instance.owner, {}).variables;
  setSecret(instance, { name: "FILE", variable: false }, "one");
  setSecret(instance, { name: "VAR", variable: true }, "two");
  assert.equal(lay(), { VAR: "two" });
  assert.is(readFileSync(join(claudeHome, ".secret.FILE"), "utf8"), "one");
  assert.equal(listSecrets(instance).map(({ name }) => name), ["FILE", "VAR"]);
  removeSecret(instance, "FILE");
  lay();
  assert.not(existsSync(join(claudeHome, ".secret.FILE")));
  assert.throws(
    () => setSecret(instance, { name: "PATH", variable: true }, "x"),
    /Cannot set PATH from a secret: this variable changes how programs run/,
  );
});

test("logout removes stored credentials, also from sessions", (context) => {
  const { instance } = context;
  const { home } = instance;
  logIn(context, Date.now() + hourMs);
  writeFileSync(home.anthropicKey, "k");
  writeFileSync(home.claudeToken, "t");
  writeFileSync(published(context), "{}");
  const session = join(home.claude, "talk");
  mkdirSync(session);
  for (const name of [".anthropic_key", ".oauth_token", "CLAUDE.md"]) {
    writeFileSync(join(session, name), "x");
  }
  forgetCredentials(instance);
  for (const path of [home.anthropicKey, home.claudeToken, home.login]) {
    assert.not(existsSync(path));
  }
  assert.not(existsSync(published(context)));
  assert.not(existsSync(join(session, ".anthropic_key")));
  assert.not(existsSync(join(session, ".oauth_token")));
  assert.ok(existsSync(join(session, "CLAUDE.md")));
});

test("laying out credentials leaves files alone that another command is writing", ({ instance, claudeHome }) => {
  const staged = (name: string) =>
    join(claudeHome, `${name}.0123456789abcdef.tmp`);
  const names = [".secret.A", ".secret-env.B", ".caller.NO_PROXY"];
  for (const name of names) writeFileSync(staged(name), "");
  writeFileSync(join(claudeHome, ".secret.OLD"), "");
  writeFileSync(staged(".secret.C"), "");
  utimesSync(staged(".secret.C"), 1, 1);
  layOutCredentials(instance, claudeHome, instance.owner, {});
  for (const name of names) assert.ok(existsSync(staged(name)), name);
  assert.not.ok(existsSync(join(claudeHome, ".secret.OLD")));
  // Left by a killed command.
  assert.not.ok(existsSync(staged(".secret.C")));
});

test.run();
