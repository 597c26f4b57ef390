// The commands of claudy egress, with a proxy that gets its policy when a test says so.

import { mkdirSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import * as v from "valibot";
import { compilePolicy } from "../../lib/egress/feed.ts";
import { policySchema } from "../../lib/egress/policy.ts";
import { defaultBounds } from "../../lib/egress/proxy/bounds.ts";
import { EgressProxy } from "../../lib/egress/proxy/proxy.ts";
import { writeRecord } from "../../lib/instance/record.ts";
import { main as claudy } from "../../scripts/claudy.ts";
import { type Served, serveEngine } from "../helper/served-engine.ts";

interface Context extends Served {
  proxy: EgressProxy;
  /** Gives the proxy the present rules. */
  feed: () => void;
}

const test = suite<Context>("egress-commands");

test.before.each(async (context) => {
  Object.assign(context, await serveEngine());
  const { instance } = context;
  mkdirSync(instance.home.services, { recursive: true });
  context.proxy = new EgressProxy({
    world: {
      lookup: () => Promise.resolve(["93.184.216.34"]),
      connect: () => assert.unreachable() as never,
    },
    bounds: defaultBounds,
    record: () => {},
  });
  const { server } = context.proxy;
  await new Promise<void>((resolve) =>
    server.listen(instance.home.egressSocket, resolve)
  );
  context.feed = () =>
    context.proxy.setPolicy(
      v.parse(policySchema, compilePolicy(instance, { HOME: "/nowhere" })),
    );
});
test.after.each(async ({ proxy, close }) => {
  await new Promise((resolve) => proxy.server.close(resolve));
  await close();
});

test("check answers by the rules that were just written", async ({ run, feed }) => {
  feed();
  const check = () => run(claudy, ["egress", "check", "new.example", "--json"]);
  const before = await check();
  assert.is(before.code, 6, before.stderr);
  assert.is(JSON.parse(before.stdout).digest, undefined);
  for (const action of ["allow", "deny"]) {
    await run(claudy, ["egress", action, "new.example"]);
    const checking = check();
    await sleep(300);
    feed();
    const { code, stdout, stderr } = await checking;
    assert.is(code, action === "allow" ? 0 : 6, stdout);
    assert.is(JSON.parse(stdout).rule, `${action} new.example`);
    assert.is(stderr, "");
  }
});

test("check warns if the proxy does not get the rules", async ({ run, feed }) => {
  feed();
  await run(claudy, ["egress", "preset", "open"]);
  const { code, stderr } = await run(claudy, [
    "egress",
    "check",
    "any.example",
  ]);
  assert.is(code, 6);
  assert.match(stderr, "warning: The proxy does not have the present rules");
});

test("check tells which secrets are set for an allowed host", async ({ run, feed }) => {
  const set = ["secret", "set", "TOKEN", "--host", "new.example"];
  await run(claudy, set, { stdin: "real-value" });
  const check = async (place: string) => {
    feed();
    return await run(claudy, ["egress", "check", place]);
  };
  assert.not.match((await check("new.example")).stdout, "TOKEN");
  await run(claudy, ["egress", "allow", "new.example"]);
  const sentence =
    "\nThe proxy sets Authorization there from the secret TOKEN.\n";
  assert.match((await check("new.example")).stdout, sentence);
  assert.not.match((await check("http://new.example")).stdout, "TOKEN");
  const json = await run(claudy, ["egress", "check", "new.example", "--json"]);
  assert.equal(JSON.parse(json.stdout).secrets, ["TOKEN"]);
  assert.not.match(json.stdout, "real-value");
});

test("check of localhost suggests no rule", async ({ run, feed }) => {
  feed();
  for (const place of ["localhost:3000", "app.localhost", "127.0.0.1:80"]) {
    const { code, stdout } = await run(claudy, ["egress", "check", place]);
    assert.is(code, 6);
    assert.match(stdout, "a loopback address, which no rule can allow");
    assert.not.match(stdout, "claudy egress allow");
  }
});

test("allow refuses hosts that no rule can allow", async ({ run }) => {
  const refused = {
    "127.0.0.1": "127.0.0.1: it is a loopback address",
    "0x7f.1:80": "127.0.0.1: it is a loopback address",
    "localhost:3000": "localhost: it is a loopback address",
    "app.localhost": "app.localhost: it is a loopback address",
    "[::1]": "::1: it is a loopback address",
    "0.0.0.0": "0.0.0.0: it is an unspecified address",
    "169.254.169.254": "169.254.169.254: it is a link-local address",
    "100.100.100.200":
      "100.100.100.200: it is an address at which clouds serve credentials",
  };
  for (const [host, what] of Object.entries(refused)) {
    const ran = await run(claudy, ["egress", "allow", "fine.example", host]);
    assert.is(ran.code, 2, host);
    assert.match(ran.stderr, `error: No rule can allow ${what}\n`);
  }
  const { stdout } = await run(claudy, ["egress", "show", "--json"]);
  assert.equal(JSON.parse(stdout).rules, []);
  for (const host of ["10.0.0.5", "[fd00::1]:443", "8.8.8.8", "*"]) {
    assert.is((await run(claudy, ["egress", "allow", host])).code, 0, host);
  }
  assert.is((await run(claudy, ["egress", "deny", "127.0.0.1"])).code, 0);
});

test("--session refuses a worker without a session, and names its project", async ({ run, instance }) => {
  writeRecord(instance, {
    version: 1,
    worker: "alone",
    container: "1",
    session: null,
    project: { path: "/p/app", uid: 1, gid: 1 },
    image: "repo:worker",
    born: "cold",
    home: "workers/alone",
    ephemeral: false,
    secrets: null,
    memoryBytes: 1,
    oomKilledAt: null,
    createdAt: new Date().toISOString(),
  });
  for (const words of [["show"], ["allow", "a.example"], ["log"]]) {
    const ran = await run(claudy, ["egress", ...words, "--session", "alone"]);
    assert.is(ran.code, 2);
    assert.match(ran.stderr, '"alone" is a worker without a session\n');
    assert.match(ran.stderr, "--project /p/app");
  }
  const other = await run(claudy, ["egress", "show", "--session", "none"]);
  assert.is(other.code, 4);
});

test.run();
