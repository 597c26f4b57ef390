import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { type AddressInfo, createServer, type Server } from "node:net";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { workerEnvironment } from "../../lib/session/local-gateway.ts";
import { Failure } from "../../lib/std/errors.ts";
import { type FakeInstance, fakeInstance } from "../helper/fake-engine.ts";

interface Context extends FakeInstance {
  server: Server;
  /** Of a server on this machine. */
  port: number;
}

const test = suite<Context>("local-gateway");

test.before.each(async (context) => {
  Object.assign(context, fakeInstance());
  context.server = createServer().listen(0, "127.0.0.1");
  await once(context.server, "listening");
  context.port = (context.server.address() as AddressInfo).port;
});
test.after.each(({ end, server }) => {
  server.close();
  end();
});

async function urlFor(
  { instance }: Context,
  url: string,
  options: { standalone?: boolean } = {},
): Promise<string | undefined> {
  const env = { ANTHROPIC_BASE_URL: url, OTHER: "x" };
  const changed = await workerEnvironment(instance, env, options);
  assert.is(changed["OTHER"], "x");
  return changed["ANTHROPIC_BASE_URL"];
}

function carry({ instance, port }: Context): void {
  const api = { url: `http://localhost:${port}`, api: true, port: 3050 };
  const text = JSON.stringify({ mcpServers: { api } });
  writeFileSync(instance.home.mcpConfig, text);
}

const failureOf = (promise: Promise<unknown>): Promise<Failure> =>
  promise.then(() => assert.unreachable() as never, (error) => error);

test("refuses a gateway on the caller's localhost, with the command that carries it in", async (context) => {
  const { port, instance } = context;
  const failure = await failureOf(
    urlFor(context, `http://localhost:${port}/v1`),
  );
  assert.instance(failure, Failure);
  assert.match(failure.message, /is on this machine's localhost/);
  assert.match(
    failure.hint ?? "",
    `claudy mcp add api-gateway --api --url http://localhost:${port}`,
  );
  // In the parent localhost is another one.
  const env = { ANTHROPIC_BASE_URL: `http://localhost:${port}` };
  const self = {} as typeof instance.self;
  assert.is(await workerEnvironment({ ...instance, self }, env), env);
});

test("uses the workers' port of a gateway that is carried in", async (context) => {
  const { port } = context;
  carry(context);
  const url = (text: string) => urlFor(context, text);
  assert.is(await url(`http://localhost:${port}`), "http://127.0.0.1:3050");
  assert.is(await url(`http://127.0.0.1:${port}/`), "http://127.0.0.1:3050");
  assert.is(
    await url(`http://localhost:${port}/a/b`),
    "http://127.0.0.1:3050/a/b",
  );
  const failure = await failureOf(
    urlFor(context, `http://localhost:${port}`, { standalone: true }),
  );
  assert.match(failure.hint ?? "", /Omit --legacy/);
});

test("keeps other URLs, and those that nothing on this machine serves", async (context) => {
  context.server.close();
  const free = `http://localhost:${context.port}`;
  for (const url of [free, "https://gateway.example/v1", "nonsense"]) {
    assert.is(await urlFor(context, url), url);
  }
  const none = await workerEnvironment(context.instance, {});
  assert.equal(none, {});
});

test.run();
