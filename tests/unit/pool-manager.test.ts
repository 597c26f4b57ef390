// The pool manager through its socket, with a fake engine and a fake nsenter.

import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { label } from "../../lib/instance/labels.ts";
import { readRecord, readRecords } from "../../lib/instance/record.ts";
import { claim, claimRequest } from "../../lib/pool/client.ts";
import { PoolManager } from "../../lib/pool/manager.ts";
import { type PoolStatus, protocolVersion } from "../../lib/pool/protocol.ts";
import { readDesired, writeDesired } from "../../lib/pool/desired.ts";
import {
  Client,
  listen,
  type Listener,
  type Peer,
} from "../../lib/std/socket-lines.ts";
import { waitFor } from "../../lib/std/wait.ts";
import { createWarm, warmRecipe } from "../../lib/pool/warm.ts";
import { type FakeInstance, fakeInstance } from "../helper/fake-engine.ts";

interface Context extends FakeInstance {
  nsenter: {
    listener: Listener;
    fault: string | undefined;
    /** The manager's connection. */
    peer?: Peer;
    attached: { mark: string }[];
    /** Processes with an attached project. */
    busy: number[];
    /** What it was tested for. */
    tested: string[];
    /** Processes in whose namespace services were opened. */
    opened: number[];
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
  // The parent's image: its id is empty because the manager does not run in a parent.
  engine.images.set("", { Id: "sha256:parent" });
  mkdirSync(instance.home.nsenter);
  const nsenter: Context["nsenter"] = {
    listener: await listen(
      join(instance.home.nsenter, "nsenter.sock"),
      async (line, peer) => {
        nsenter.peer = peer;
        const request = line as {
          op: string;
          pid: number;
          mark: string;
          for: string;
        };
        if (request.op === "test") {
          nsenter.tested.push(request.for);
          return { fault: nsenter.fault };
        }
        if (request.op === "open") {
          nsenter.opened.push(request.pid);
          return { taken: [] };
        }
        if (request.op === "look") {
          return { attached: nsenter.busy.includes(request.pid) };
        }
        await nsenter.attach();
        nsenter.attached.push(request);
        return {};
      },
    ),
    fault: undefined,
    attached: [],
    busy: [],
    opened: [],
    tested: [],
    attach: () => Promise.resolve(),
  };
  context.nsenter = nsenter;
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

test.after.each(async ({ halt, nsenter, end, instance }) => {
  writeDesired(instance, false, { minWarm: 0, maxWarm: 0 });
  await halt();
  await nsenter.listener.close();
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
  return claim(instance, claimRequest(instance.settings, request));
}

test("a claim has the image's process limit, and reports what the image lacks", async (context) => {
  const { begin, engine, project } = context;
  const Labels = { [label.inputs]: "x", [label.pids]: "2048" };
  engine.images.set("repo:worker", { Id: "sha256:worker", Config: { Labels } });
  await begin();
  await untilWarm(context, 1);
  mkdirSync(join(project("app"), ".git"));
  writeFileSync(join(project("app"), ".gitattributes"), "* filter=lfs\n");
  const reply = await claimApp(context);
  if (reply.start !== "warm") throw new Error(reply.reason);
  assert.is(engine.find("mine")?.spec.HostConfig?.PidsLimit, 2048);
  assert.is(reply.notices?.length, 1);
  assert.match(reply.notices?.[0] ?? "", /Git LFS/);
});

test("a manager that is stopped closes its connection to nsenter, so that it can end", async (context) => {
  const { begin, halt, nsenter } = context;
  await begin();
  await untilWarm(context, 1);
  assert.ok(nsenter.peer?.open);
  await halt();
  await waitFor(() => !nsenter.peer?.open, {
    for: "the end of the connection",
    timeoutMs: 2000,
  });
});

test("resize replaces the warm workers by those of another network", async (context) => {
  const { begin, ask, engine, nsenter, instance } = context;
  await begin();
  await untilWarm(context, 1);
  const [before] = warmNames(context);
  const modes = () =>
    warmNames(context).map((name) =>
      engine.find(name)?.spec.HostConfig?.NetworkMode
    );
  assert.equal(modes(), ["container:fake-net"]);
  const sizes = {};
  const answer = await ask("resize", { sizes, network: "isolated" });
  assert.is((answer as PoolStatus).network, "isolated");
  assert.ok(nsenter.tested.includes("listeners"));
  await waitFor(() => modes().join() === "none", {
    for: "an isolated warm worker",
    timeoutMs: 5000,
  });
  assert.not.equal(warmNames(context), [before]);
  await waitFor(() => nsenter.opened.length === 1, {
    for: "its services",
    timeoutMs: 5000,
  });
  await context.halt();
  assert.is(readDesired(instance).network, "isolated");
});

test("a claim assigns a worker to the project, and the pool is refilled", async (context) => {
  const { begin, instance, engine, ask, nsenter } = context;
  await begin();
  await untilWarm(context, 1);
  await ask("ping");
  const reply = await claimApp(context);
  if (reply.start !== "warm") throw new Error(reply.reason);
  assert.is(engine.find("mine")?.id, reply.worker.id);
  const { Env } = engine.find("mine")?.spec ?? {};
  assert.is(nsenter.attached.length, 1);
  assert.ok(Env?.includes(nsenter.attached[0]?.mark ?? ""));
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

test("a drained pool stays empty until warm refills it", async (context) => {
  const { begin, ask } = context;
  await begin();
  await untilWarm(context, 1);
  assert.equal(await ask("drain"), { removed: 1 });
  // Longer than one interval.
  await sleep(1300);
  assert.equal(warmNames(context), []);
  const status = await ask("warm") as PoolStatus;
  assert.is(status.warm.length, 1);
});

test("stop removes warm workers but not nsenter, and is persistent", async (context) => {
  const { begin, ask, engine, instance } = context;
  await begin();
  await untilWarm(context, 1);
  assert.ok(engine.find("fake-nsenter"));
  assert.equal(await ask("stop"), { removed: 1 });
  assert.ok(engine.find("fake-nsenter"));
  assert.is(readDesired(instance).enabled, false);
  await sleep(100);
  assert.equal(warmNames(context), []);
});

test("scale creates and removes warm workers immediately, up to the maximum", async (context) => {
  const { begin, ask } = context;
  await begin();
  assert.equal(await ask("scale", { warm: 5 }), { capped: true, minWarm: 2 });
  await untilWarm(context, 2);
  assert.equal(await ask("scale", { warm: 1 }), { capped: false, minWarm: 1 });
  await untilWarm(context, 1);
  assert.equal(await ask("scale", { warm: 0 }), { capped: false, minWarm: 0 });
  assert.equal(warmNames(context), []);
});

test("cleanup removes workers above the minimum, and exited warm workers", async (context) => {
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

test("replaces a warm worker that exits", async (context) => {
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

test("manager and claims continue if a warm worker cannot be removed", async (context) => {
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

test("spawns cold while the net is down", async (context) => {
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

test("reports an nsenter container that cannot mount, and keeps no warm workers then", async (context) => {
  const { begin, ask, nsenter, told } = context;
  nsenter.fault = "no rights";
  await begin();
  assert.equal(await claimApp(context), { start: "cold", reason: "no rights" });
  const status = await ask("status") as PoolStatus;
  assert.is(status.unavailable, "no rights");
  assert.ok(told.includes("Warm claims are unavailable: no rights"));
  await sleep(100);
  assert.equal(warmNames(context), []);
  nsenter.fault = undefined;
  await ask("warm");
  assert.is(warmNames(context).length, 1);
});

test("keeps no warm workers without limits that are required, and says why", async (context) => {
  const { begin, ask, engine, instance } = context;
  Object.assign(engine.about, { MemoryLimit: false });
  Object.assign(instance.settings, { REQUIRE_LIMITS: true });
  await begin();
  const status = await ask("warm") as PoolStatus;
  const unavailable =
    "the engine cannot limit memory of containers, and REQUIRE_LIMITS is set";
  assert.is(status.unavailable, unavailable);
  assert.equal(warmNames(context), []);
  assert.not(engine.find("fake-nsenter"));
  assert.equal(await claimApp(context), { start: "cold", reason: unavailable });
});

test("a claim warns of limits that have no effect, and the status has none", async (context) => {
  const { begin, ask, engine, told } = context;
  Object.assign(engine.about, { CpuCfsQuota: false });
  await begin();
  await untilWarm(context, 1);
  const reply = await claimApp(context);
  if (reply.start !== "warm") throw new Error(reply.reason);
  assert.match(reply.notices?.join() ?? "", /^warning: .*cannot limit CPUs/);
  const { limits } = await ask("status") as PoolStatus;
  assert.is(limits.cpus, 0);
  assert.not(told.join().includes("cannot limit"));
});

test("spawns cold if nsenter is lost, and does not reuse the worker", async (context) => {
  const { begin, nsenter, engine } = context;
  await begin();
  await untilWarm(context, 1);
  const [name = ""] = warmNames(context);
  const id = engine.find(name)?.id ?? "";
  nsenter.attach = () => Promise.reject(new Error("no such process"));
  const reply = await claimApp(context);
  assert.equal(reply, {
    start: "cold",
    reason: "the claim failed: no such process",
  });
  assert.not(engine.find(id));
  assert.equal(readRecords(context.instance), []);
});

test("attaches a restarted claimed worker to its project again", async (context) => {
  const { begin, engine, nsenter } = context;
  await begin();
  await untilWarm(context, 1);
  await claimApp(context);
  const worker = engine.find("mine");
  assert.ok(worker);
  engine.emit("start", worker);
  await waitFor(() => nsenter.attached.length === 2, {
    for: "the attachment",
    timeoutMs: 3000,
  });
  assert.equal(nsenter.attached[1], nsenter.attached[0]);
});

test("a new manager attaches what restarted meanwhile, and nothing twice", async (context) => {
  const { begin, halt, nsenter, told } = context;
  await begin();
  await untilWarm(context, 1);
  await claimApp(context);
  await halt();
  nsenter.busy.push(4242);
  await begin();
  await context.ask("warm");
  await halt();
  assert.is(nsenter.attached.length, 1);
  nsenter.busy.splice(0); // the mounts ended with the worker's processes
  await begin();
  await waitFor(() => nsenter.attached.length === 2, {
    for: "the attachment",
    timeoutMs: 3000,
  });
  assert.equal(nsenter.attached[1], nsenter.attached[0]);
  assert.ok(
    told.includes('"mine" was restarted; attaching its project again'),
  );
});

test("a new manager continues complete claims and undoes incomplete ones", async (context) => {
  const { begin, halt, engine, instance, nsenter, told } = context;
  await begin();
  await untilWarm(context, 1);
  await claimApp(context);
  await untilWarm(context, 1);
  await halt();
  // Left by a killed manager: a renamed worker without a record, and a worker with an
  // attached project.
  const [touched = ""] = warmNames(context);
  const broken = { ...engine.find("mine") };
  engine.add("broken", { ...broken, id: "b".repeat(64), name: "broken" });
  nsenter.busy.push(4242);
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

test("refuses invalid requests with a hint", async (context) => {
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

test("counts cold spawns by their reason", async (context) => {
  const { begin, ask } = context;
  await begin();
  await ask("cold", { reason: "no limits" });
  await ask("cold", { reason: "no limits: quoted" });
  const { metrics } = await ask("status") as PoolStatus;
  assert.equal(metrics.claims, { warm: 0, cold: { "no limits": 2 } });
});

test("a repeated claim gets the same worker", async (context) => {
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

test("does not claim a worker with an older image", async (context) => {
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
