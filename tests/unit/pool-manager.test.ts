// The pool manager, asked over its socket, with an engine in memory and a mounter that
// only answers.

import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { readRecord, readRecords } from "../../lib/instance/record.ts";
import { claim, claimRequest } from "../../lib/pool/client.ts";
import { PoolManager } from "../../lib/pool/manager.ts";
import { type PoolStatus, protocolVersion } from "../../lib/pool/protocol.ts";
import { readDesired, writeDesired } from "../../lib/pool/desired.ts";
import { Client, listen, type Listener } from "../../lib/std/socket-lines.ts";
import { waitFor } from "../../lib/std/wait.ts";
import { createWarm, warmRecipe } from "../../lib/pool/warm.ts";
import { type FakeInstance, fakeInstance } from "../helper/fake-engine.ts";

interface Context extends FakeInstance {
  mounter: {
    listener: Listener;
    fault: string | undefined;
    attached: { container: string }[];
    /** Processes that have something attached. */
    busy: number[];
    attach: () => Promise<void>;
  };
  /** Starts a manager. */
  begin: () => Promise<PoolManager>;
  ask: (op: string, more?: object) => Promise<unknown>;
  halt: () => Promise<void>;
}

const test = suite<Context>("pool manager");

test.before.each(async (context) => {
  Object.assign(context, fakeInstance());
  const { instance, engine, log } = context;
  // That of the parent, which this is not.
  engine.images.set("", { Id: "sha256:parent" });
  mkdirSync(instance.home.mounter);
  const mounter: Context["mounter"] = {
    listener: await listen(
      join(instance.home.mounter, "mounter.sock"),
      async (line) => {
        const request = line as { op: string; pid: number; container: string };
        if (request.op === "test") return { fault: mounter.fault };
        if (request.op === "look") {
          return { attached: mounter.busy.includes(request.pid) };
        }
        await mounter.attach();
        mounter.attached.push(request);
        return {};
      },
    ),
    fault: undefined,
    attached: [],
    busy: [],
    attach: () => Promise.resolve(),
  };
  context.mounter = mounter;
  let stop = new AbortController();
  let ended: Promise<void> | undefined;
  context.begin = async () => {
    stop = new AbortController();
    const manager = new PoolManager(instance, log);
    ended = manager.run(stop.signal);
    await waitFor(() => existsSync(instance.home.poolSocket), {
      for: "the socket",
      timeoutMs: 5000,
    });
    await waitFor(() => engine.followers > 0, {
      for: "the manager to follow events",
      timeoutMs: 5000,
    });
    return manager;
  };
  context.ask = async (op, more = {}) => {
    const client = new Client(instance.home.poolSocket);
    try {
      const request = { version: protocolVersion, op, ...more };
      return await client.ask(request, 5000);
    } finally {
      client.close();
    }
  };
  context.halt = async () => {
    stop.abort();
    await ended;
  };
  writeDesired(instance, true, { minWarm: 1, maxWarm: 2, checkInterval: 1 });
});

test.after.each(async ({ halt, mounter, end, instance }) => {
  writeDesired(instance, false, { minWarm: 0, maxWarm: 0 });
  await halt();
  await mounter.listener.close();
  end();
});

const warmNames = ({ engine }: Context) =>
  engine.names().filter((name) => name.startsWith("fake-warm-"));

const untilWarm = (context: Context, count: number) =>
  waitFor(() => warmNames(context).length === count, {
    for: `${count} warm workers`,
    timeoutMs: 5000,
  });

function claimApp({ instance, project }: Context, name = "mine") {
  const request = { directory: project("app"), cwd: "/", name };
  return claim(instance.home, claimRequest(instance.settings, request));
}

test("a claimed worker is that of the project, and another becomes warm", async (context) => {
  const { begin, instance, engine, ask, mounter } = context;
  await begin();
  await untilWarm(context, 1);
  await ask("ping");
  const reply = await claimApp(context);
  if (reply.start !== "warm") throw new Error(reply.reason);
  assert.is(engine.find("mine")?.id, reply.worker.id);
  assert.equal(mounter.attached.map(({ container }) => container), [
    reply.worker.id,
  ]);
  assert.ok(existsSync(instance.home.claim(reply.worker.id)));
  await untilWarm(context, 1);
  const status = await ask("status") as PoolStatus;
  assert.is(status.metrics.claims.warm, 1);
  assert.equal(status.busy, [{
    name: "mine",
    project: context.project("app"),
  }]);
  assert.is(status.unavailable, null);
});

test("a drained pool stays empty at its next look, and fills again when it is asked to", async (context) => {
  const { begin, ask } = context;
  await begin();
  await untilWarm(context, 1);
  assert.equal(await ask("drain"), { removed: 1 });
  // More than one interval later.
  await sleep(1300);
  assert.equal(warmNames(context), []);
  const status = await ask("warm") as PoolStatus;
  assert.is(status.warm.length, 1);
});

test("stop removes the warm workers and the mounter, and is remembered", async (context) => {
  const { begin, ask, engine, instance } = context;
  await begin();
  await untilWarm(context, 1);
  assert.ok(engine.find("fake-mounter"));
  assert.equal(await ask("stop"), { removed: 1 });
  assert.not(engine.find("fake-mounter"));
  assert.is(readDesired(instance).enabled, false);
  await sleep(100);
  assert.equal(warmNames(context), []);
});

test("scale makes and removes warm workers at once, up to the maximum", async (context) => {
  const { begin, ask } = context;
  await begin();
  assert.equal(await ask("scale", { warm: 5 }), { capped: true, minWarm: 2 });
  await untilWarm(context, 2);
  assert.equal(await ask("scale", { warm: 1 }), { capped: false, minWarm: 1 });
  await untilWarm(context, 1);
  assert.equal(await ask("scale", { warm: 0 }), { capped: false, minWarm: 0 });
  assert.equal(warmNames(context), []);
});

test("cleanup removes what is above the minimum, and warm workers that ended", async (context) => {
  const { begin, ask, engine, instance, log } = context;
  await begin();
  await ask("scale", { warm: 2 });
  await untilWarm(context, 2);
  await ask("resize", { sizes: { minWarm: 1 } });
  const network = { mode: "container:fake-net", since: "now" };
  const recipe = await warmRecipe(instance, "repo:worker", network, log);
  assert.ok(recipe);
  const { id } = await createWarm(instance, recipe);
  Object.assign(engine.find(id) ?? {}, { state: "exited" });
  assert.equal(await ask("cleanup"), { removed: 2 });
  assert.is(warmNames(context).length, 1);
  assert.not(engine.find(id));
});

test("a warm worker that dies is removed and replaced", async (context) => {
  const { begin, engine } = context;
  await begin();
  await untilWarm(context, 1);
  const [name = ""] = warmNames(context);
  const worker = engine.find(name);
  assert.ok(worker);
  worker.state = "exited";
  engine.emit("die", worker);
  await waitFor(() => !engine.find(name) && warmNames(context).length === 1, {
    for: "another",
    timeoutMs: 3000,
  });
});

test("a warm worker that cannot be removed ends neither the manager nor claims", async (context) => {
  const { begin, engine, told, ask } = context;
  await begin();
  await untilWarm(context, 1);
  const [name = ""] = warmNames(context);
  engine.refuses.set(`remove ${name}`, 500);
  const worker = engine.find(name);
  assert.ok(worker);
  engine.emit("die", worker);
  await waitFor(
    () =>
      told.some((line) =>
        line === "Cannot remove a warm worker that ended: refused"
      ),
    { for: "the warning", timeoutMs: 3000 },
  );
  assert.equal(await ask("ping"), {});
});

test("nothing is claimed while the net is down: the spawn goes cold", async (context) => {
  const { begin, engine, ask } = context;
  await begin();
  await untilWarm(context, 1);
  const net = engine.find("fake-net");
  assert.ok(net);
  net.state = "exited";
  engine.emit("die", net);
  await untilWarm(context, 0);
  assert.equal(await claimApp(context), {
    start: "cold",
    reason: "the network is down",
  });
  net.state = "running";
  net.startedAt = new Date().toISOString();
  engine.emit("start", net);
  await ask("warm");
  assert.is((await claimApp(context)).start, "warm");
});

test("a mounter that cannot mount is told, and no worker is kept warm for nothing", async (context) => {
  const { begin, ask, mounter, told } = context;
  mounter.fault = "no rights";
  await begin();
  assert.equal(await claimApp(context), { start: "cold", reason: "no rights" });
  const status = await ask("status") as PoolStatus;
  assert.is(status.unavailable, "no rights");
  assert.ok(told.includes("Warm claims are unavailable: no rights"));
  await sleep(100);
  assert.equal(warmNames(context), []);
  mounter.fault = undefined;
  await ask("warm");
  assert.is(warmNames(context).length, 1);
});

test("a claim whose mounter is lost goes cold, and the worker is not used again", async (context) => {
  const { begin, mounter, engine } = context;
  await begin();
  await untilWarm(context, 1);
  const [name = ""] = warmNames(context);
  const id = engine.find(name)?.id ?? "";
  mounter.attach = () => Promise.reject(new Error("no such process"));
  const reply = await claimApp(context);
  assert.equal(reply, {
    start: "cold",
    reason: "the claim failed: no such process",
  });
  assert.not(engine.find(id));
  assert.equal(readRecords(context.instance), []);
});

test("a claimed worker that is started again is attached to its project again", async (context) => {
  const { begin, engine, mounter } = context;
  await begin();
  await untilWarm(context, 1);
  await claimApp(context);
  const worker = engine.find("mine");
  assert.ok(worker);
  engine.emit("start", worker);
  await waitFor(() => mounter.attached.length === 2, {
    for: "the attachment",
    timeoutMs: 3000,
  });
  assert.equal(mounter.attached[1], mounter.attached[0]);
});

test("a new manager goes on with whole claims and undoes broken ones", async (context) => {
  const { begin, halt, engine, instance, mounter, told } = context;
  await begin();
  await untilWarm(context, 1);
  await claimApp(context);
  await untilWarm(context, 1);
  await halt();
  // Of a manager that was killed: a renamed worker with no record, and one that has
  // something attached.
  const [touched = ""] = warmNames(context);
  const broken = { ...engine.find("mine") };
  engine.add("broken", { ...broken, id: "b".repeat(64), name: "broken" });
  mounter.busy.push(4242);
  await begin();
  await waitFor(() => !engine.find(touched), {
    for: "the touched one to go",
    timeoutMs: 3000,
  });
  assert.not(engine.find("broken"));
  assert.ok(engine.find("mine"));
  assert.ok(readRecord(instance, "mine"));
  assert.ok(told.includes('Removing "broken": its claim was interrupted'));
});

test("what is no request is refused with what to do", async (context) => {
  const { begin, ask } = context;
  await begin();
  for (
    const [op, more] of [["dance", {}], ["ping", { version: 1 }]] as const
  ) {
    const failure = await ask(op, more).catch((error) => error) as {
      message: string;
      hint: string;
    };
    assert.match(failure.message, /^The pool was sent: /);
    assert.match(failure.hint, /claudy daemon restart/);
  }
});

test("spawns that could not be claims are counted by their reason", async (context) => {
  const { begin, ask } = context;
  await begin();
  await ask("cold", { reason: "no limits" });
  await ask("cold", { reason: "no limits: quoted" });
  const { metrics } = await ask("status") as PoolStatus;
  assert.equal(metrics.claims, { warm: 0, cold: { "no limits": 2 } });
});

test("a claim that is sent again gets the same worker", async (context) => {
  const { begin, ask, instance, project } = context;
  await begin();
  await untilWarm(context, 1);
  const id = "00000000-0000-0000-0000-000000000000";
  const request = {
    id,
    ...claimRequest(instance.settings, {
      directory: project("app"),
      cwd: "/",
      name: "mine",
    }),
  };
  const [one, two] = await Promise.all([
    ask("claim", request),
    ask("claim", request),
  ]);
  assert.equal(one, two);
  const { worker } = one as { worker: { name: string } };
  assert.is(worker.name, "mine");
  assert.equal(await ask("claim", request), { start: "warm", worker });
});

test("an image that is newer than the pool's workers is not claimed", async (context) => {
  const { begin, ask, instance, project } = context;
  await begin();
  await untilWarm(context, 1);
  const refused = async (change: object) => {
    const request = claimRequest(instance.settings, {
      directory: project("app"),
      cwd: "/",
      ...change,
    });
    return await ask("claim", { id: crypto.randomUUID(), ...request }) as {
      reason: string;
    };
  };
  assert.is(
    (await refused({ imageId: "sha256:new" })).reason,
    "the image is newer",
  );
  assert.is((await refused({ image: "other" })).reason, "another image");
  assert.is(warmNames(context).length, 1);
});

test.run();
