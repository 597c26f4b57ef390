// Starting and stopping the daemon, on a fake engine.

import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import * as v from "valibot";
import {
  restartDaemon,
  startDaemon,
  stopDaemon,
  waitForChromadb,
} from "../../lib/daemon/daemon.ts";
import { ensureNet, keepNet, noRequest } from "../../lib/daemon/net.ts";
import { waitForPorts, waitForServices } from "../../lib/daemon/services.ts";
import { daemonStatus } from "../../lib/daemon/status.ts";
import { compilePolicy } from "../../lib/egress/feed.ts";
import { policySchema } from "../../lib/egress/policy.ts";
import { defaultBounds } from "../../lib/egress/proxy/bounds.ts";
import { EgressProxy } from "../../lib/egress/proxy/proxy.ts";
import { realWorld } from "../../lib/egress/proxy/world.ts";
import { listWorkers } from "../../lib/worker/workers.ts";
import {
  parentAnswers,
  serveParent,
} from "../../lib/instance/parent-socket.ts";
import { label } from "../../lib/instance/labels.ts";
import {
  type ParentState,
  readParentState,
  writeParentState,
} from "../../lib/instance/parent-state.ts";
import {
  type FakeContainer,
  type FakeInstance,
  fakeInstance,
} from "../helper/fake-engine.ts";

const test = suite<FakeInstance>("daemon");

const state: ParentState = {
  version: 1,
  container: "",
  build: "digest",
  ready: true,
  readyMs: 5,
  chromadbFault: null,
  shared: { open: [8000], taken: [] },
  phases: [{ name: "one", ms: 5 }],
  children: [],
};

test.before.each((context) => {
  Object.assign(context, fakeInstance());
  const { engine, instance } = context;
  engine.containers.length = 0;
  // The parent reports that it is ready immediately after its start.
  engine.started = ({ name, id }) => {
    if (name !== "fake-parent") return;
    writeParentState(instance, { ...state, container: id });
  };
});
test.after.each(({ end }) => end());

const start = (
  { instance, log }: FakeInstance,
  env: NodeJS.ProcessEnv = {},
  network: Parameters<typeof startDaemon>[3] = noRequest,
) => startDaemon(instance, env, log, network);

const failureOf = (
  promise: Promise<unknown>,
): Promise<Error & { kind: string; hint?: string }> =>
  promise.then(() => assert.unreachable() as never, (error) => error);

const port = {
  address: "127.0.0.1",
  hostPort: "8080",
  containerPort: "80",
};

function worker({ engine, labels }: FakeInstance, name = "w"): FakeContainer {
  return engine.add(name, {
    spec: {
      Labels: labels({ [label.project]: "/p" }),
      HostConfig: { NetworkMode: "container:fake-net" },
    },
  });
}

test("start creates net and parent, volumes and settings file", async (fake) => {
  const { engine, instance } = fake;
  const said = await start(fake);
  assert.is(said.ready, true);
  assert.equal(engine.names(), ["fake-net", "fake-parent"]);
  assert.ok(engine.containers.every(({ state }) => state === "running"));
  assert.equal(
    [...engine.volumes.keys()].sort(),
    ["fake-chromadb", "fake-memorybank", "fake-plugins"],
  );
  assert.ok(existsSync(instance.home.conf));
  const hosts = readFileSync(join(instance.home.netFiles, "hosts"), "utf8");
  assert.is(hosts, "fake-net /etc/hosts\n");
});

test("start waits for the services of isolated workers, and only for theirs", async (fake) => {
  const { engine, instance, labels } = fake;
  const of = (kind: string) => labels({ [label.network]: kind });
  worker(fake);
  const wait = async (timeoutMs: number) => {
    const said: string[] = [];
    const startedAt = performance.now();
    const workers = await listWorkers(instance);
    const log = (line: string) => void said.push(line);
    await waitForServices(instance, workers, log, timeoutMs);
    return { ms: performance.now() - startedAt, said };
  };
  assert.equal((await wait(5000)).said, []);
  engine.add("alone", { spec: { Labels: of("isolated") } });
  const warning = "warning: Isolated workers do not reach all services yet: ";
  const ready = { ...state, servicesFault: null };
  for (
    const [reported, fault] of [
      [state, "they are not open yet"],
      [{ ...ready, servicesFault: "no rights" }, "no rights"],
      [{ ...ready, chromadbFault: "starting" }, "ChromaDB: starting"],
      [ready, "the egress proxy does not answer"],
    ] as const
  ) {
    writeParentState(instance, reported);
    assert.equal((await wait(60)).said, [warning + fault]);
  }
  const proxy = new EgressProxy({
    world: realWorld,
    bounds: defaultBounds,
    record: () => {},
  });
  mkdirSync(instance.home.services, { recursive: true });
  proxy.server.listen(instance.home.egressSocket);
  await once(proxy.server, "listening");
  assert.equal((await wait(60)).said, [
    `${warning}the egress proxy has no policy`,
  ]);
  const policy = compilePolicy(instance, { HOME: "/nowhere" });
  setTimeout(() => proxy.setPolicy(v.parse(policySchema, policy)), 300);
  const waited = await wait(5000);
  assert.equal(waited.said, []);
  assert.ok(waited.ms >= 250 && waited.ms < 4000, `${waited.ms}`);
  proxy.server.close();
});

test("start is idempotent", async (fake) => {
  const { engine } = fake;
  await start(fake);
  const before = engine.asked.length;
  await start(fake);
  assert.equal(engine.asked.slice(before), []);
});

test("start repairs what is down after a restart of the engine", async (fake) => {
  const { engine } = fake;
  await start(fake);
  const ids = engine.containers.map(({ id }) => id).slice(0, 2);
  for (const container of engine.containers) container.state = "exited";
  await start(fake);
  assert.ok(engine.containers.every(({ state }) => state === "running"));
  for (const id of ids) assert.ok(engine.find(id));
});

test("start unpauses a paused parent and net", async (fake) => {
  const { engine, told } = fake;
  await start(fake);
  for (const name of ["fake-net", "fake-parent"]) {
    Object.assign(engine.find(name) ?? {}, { state: "paused" });
  }
  await start(fake);
  assert.ok(engine.containers.every(({ state }) => state === "running"));
  assert.equal(told.sort(), [
    "fake-net was paused; unpausing it",
    "fake-parent was paused; unpausing it",
  ]);
});

test("passes only the settings in the environment to the parent", async (fake) => {
  const { engine } = fake;
  await start(fake, { WORKER_MEMORY: "1g", CHROMADB_PORT: "", SECRET: "x" });
  const env = engine.find("fake-parent")?.spec.Env ?? [];
  assert.ok(env.includes("WORKER_MEMORY=1g"));
  assert.not(env.some((line) => /^(SECRET|CHROMADB_PORT)=/.test(line)));
});

test("replaces a parent with an old image; workers and their network stay", async (fake) => {
  const { engine } = fake;
  await start(fake);
  const before = engine.find("fake-parent")?.id;
  const net = engine.find("fake-net")?.id;
  const live = worker(fake);
  const former = engine.find("fake-parent") as FakeContainer;
  former.image = "sha256:former";
  await start(fake);
  assert.is.not(engine.find("fake-parent")?.id, before);
  assert.is(engine.find("fake-net")?.id, net);
  assert.ok(engine.find(live.id));
});

test("restarts a running parent that does not answer, and logs why", async (fake) => {
  const { engine, instance, told } = fake;
  await start(fake);
  const parent = engine.find("fake-parent") as FakeContainer;
  // Long enough to report a state.
  parent.startedAt = "2026-01-01T00:00:00Z";
  await start(fake);
  assert.ok(told.includes("Restarting the parent: it does not answer"));
  writeFileSync(instance.home.parentState, "{");
  await start(fake);
  assert.ok(
    told.includes(
      "Restarting the parent: its state file cannot be read",
    ),
  );
  assert.is(engine.asked.filter((one) => one.startsWith("restart")).length, 2);
  // A parent that answers is left alone.
  const stop = new AbortController();
  const serving = serveParent(instance, stop.signal);
  await start(fake);
  assert.is(engine.asked.filter((one) => one.startsWith("restart")).length, 2);
  assert.is(await parentAnswers(instance), true);
  stop.abort();
  await serving;
  assert.is(await parentAnswers(instance), false);
});

test("reports a parent that exits at its start, with a hint", async (fake) => {
  const { engine } = fake;
  engine.started = (container) => {
    if (container.name === "fake-parent") container.state = "exited";
  };
  const failure = await failureOf(start(fake));
  assert.is(failure.message, "fake-parent ended during its start");
  assert.is(failure.hint, "See why: docker logs fake-parent");
  const { instance } = fake;
  const settings = { ...instance.settings, HAL9000_ENGINE_SOCKET: "/tmp" };
  const other = await failureOf(
    start({ ...fake, instance: { ...instance, settings } }),
  );
  assert.match(
    other.hint ?? "",
    "HAL9000_ENGINE_SOCKET is the engine's socket: /tmp",
  );
});

test("reports at once that the parent's state belongs to somebody else", async (fake) => {
  const { instance, engine, log } = fake;
  const { uid } = instance.owner;
  engine.started = ({ name }) => {
    // As root writes it where the engine's machine changes no owners.
    if (name !== "fake-parent") return;
    writeFileSync(instance.home.parentState, "not readable");
  };
  const owner = { uid: uid + 1, gid: 0 };
  const failure = await failureOf(
    startDaemon({ ...instance, owner }, {}, log, noRequest),
  );
  assert.is(
    failure.message,
    `Cannot read ${instance.home.parentState}: it belongs to uid ${uid}, ` +
      "so the engine's machine does not keep owners",
  );
  assert.match(failure.hint ?? "", /^Share your files .* keeps owners/);
});

test("start without the parent's image fails with a hint and creates nothing", async (fake) => {
  const { engine } = fake;
  engine.images.clear();
  const failure = await failureOf(start(fake));
  assert.is(failure.kind, "notFound");
  assert.match(failure.hint ?? "", /claudy up/);
  assert.equal(engine.asked, []);
});

test("refuses to start or stop the parent from inside the parent", async (fake) => {
  const { instance, engine, log } = fake;
  const inside = {
    ...instance,
    self: { Id: "x" } as unknown as NonNullable<typeof instance.self>,
  };
  for (
    const attempt of [
      startDaemon(inside, {}, log),
      stopDaemon(inside, log),
      restartDaemon(inside, {}, log),
    ]
  ) {
    assert.is((await failureOf(attempt)).kind, "usage");
  }
  assert.equal(engine.asked, []);
});

test("restart replaces the parent and keeps the net", async (fake) => {
  const { instance, engine, log } = fake;
  await start(fake);
  const parent = engine.find("fake-parent")?.id;
  const net = engine.find("fake-net")?.id;
  await restartDaemon(instance, {}, log);
  assert.is.not(engine.find("fake-parent")?.id, parent);
  assert.is(engine.find("fake-net")?.id, net);
});

test("stop keeps workers, and their network while a worker is running", async (fake) => {
  const { instance, engine, told, log } = fake;
  await start(fake);
  const live = worker(fake);
  await stopDaemon(instance, log);
  assert.equal(engine.names(), ["fake-net", "w"]);
  assert.equal(told, ["Workers still running: w"]);
  live.state = "exited";
  await stopDaemon(instance, log);
  assert.equal(engine.names(), ["w"]);
  await stopDaemon(instance, log);
});

test("stop names the workers that still use the net, if it cannot be removed before", async (fake) => {
  const { instance, engine, log } = fake;
  engine.removesNetworks = false; // as Podman
  await start(fake);
  const kept = worker(fake);
  kept.state = "exited";
  kept.spec.HostConfig = { NetworkMode: "container:fake-net" };
  const failure = await failureOf(stopDaemon(instance, log));
  assert.is(failure.kind, "busy");
  assert.is(
    failure.message,
    "Cannot remove fake-net: its network is used by w",
  );
  assert.is(failure.hint, "Remove them first: docker rm w");
  assert.equal(engine.names(), ["fake-net", "w"]);
  engine.containers.splice(engine.containers.indexOf(kept), 1);
  await stopDaemon(instance, log);
  assert.equal(engine.names(), []);
});

test("refuses to publish ports while workers run; otherwise recreates the net", async (fake) => {
  const { engine } = fake;
  await start(fake);
  const before = engine.find("fake-net")?.id;
  const live = worker(fake);
  const publish = () =>
    start(fake, {}, { published: [port], allowHost: false });
  const failure = await failureOf(publish());
  assert.is(
    failure.message,
    "Cannot change the published ports while workers run: w",
  );
  assert.is(engine.find("fake-net")?.id, before);
  live.state = "exited";
  await publish();
  const net = engine.find("fake-net");
  assert.is.not(net?.id, before);
  assert.ok(Object.keys(net?.spec.HostConfig?.PortBindings ?? {}).length > 0);
  // Published ports stay if none are given.
  await start(fake);
  assert.is(engine.find("fake-net")?.id, net?.id);
});

test("replaces a net of an old version unless workers use it", async (fake) => {
  const { instance, engine, told, log } = fake;
  await start(fake);
  const net = engine.find("fake-net") as FakeContainer;
  net.spec = { ...net.spec, Cmd: ["sleep"] };
  const live = worker(fake);
  const ensure = () => ensureNet(instance, "repo:parent", noRequest, log);
  await ensure();
  assert.ok(engine.find(net.id));
  assert.match(
    told[0] ?? "",
    /fake-net is from before: workers can take the ports of services\./,
  );
  live.state = "exited";
  await ensure();
  assert.not(engine.find(net.id));
});

test("allows access to the host only if that is asked for, and no workers run", async (fake) => {
  const { instance, engine, told, log } = fake;
  const allow = () =>
    ensureNet(instance, "repo:parent", { published: [], allowHost: true }, log);
  const caps = () => engine.find("fake-net")?.spec.HostConfig?.CapAdd;
  await start(fake, {}, { published: [port], allowHost: false });
  assert.equal(caps(), ["NET_ADMIN", "SETUID", "SETGID"]);
  const live = worker(fake);
  const { message } = await failureOf(allow());
  assert.is(message, "Cannot allow access to the host while workers run: w");
  live.state = "exited";
  await allow();
  assert.is(caps(), undefined);
  // Back to the default, with the same published ports.
  live.state = "running";
  told.length = 0;
  await start(fake);
  assert.is(caps(), undefined);
  assert.match(told[0] ?? "", /fake-net is from before: workers can reach/);
  live.state = "exited";
  await start(fake);
  assert.ok(caps());
  assert.equal(
    Object.keys(engine.find("fake-net")?.spec.HostConfig?.PortBindings ?? {}),
    ["80/tcp"],
  );
});

test("reports whether workers can reach the host", async (fake) => {
  const { instance, engine, log } = fake;
  await start(fake);
  const status = async () => {
    const { allowsHost, hostFault } = await daemonStatus(instance);
    return { allowsHost, hostFault };
  };
  const asked: string[] = [];
  const answers = (exitCode: number, output: string) => {
    engine.run = (command) => {
      asked.push(command.join(" "));
      return { exitCode, output };
    };
  };
  answers(0, '{"fault":null}');
  assert.equal(await status(), { allowsHost: false, hostFault: null });
  assert.equal(asked, ["/scripts/net look"]);
  answers(0, '{"fault":"nft failed"}');
  assert.equal(await status(), { allowsHost: true, hostFault: "nft failed" });
  answers(1, "no such program");
  assert.is((await status()).hostFault, "no such program");
  const request = { published: [], allowHost: true };
  await ensureNet(instance, "repo:parent", request, log);
  assert.match((await status()).hostFault ?? "", /--allow-host/);
});

test("start lists workers that have lost their network", async (fake) => {
  const { engine, told } = fake;
  await start(fake);
  const lost = worker(fake, "lost");
  lost.createdAt = lost.startedAt = "2026-01-01T00:00:00Z";
  await start(fake);
  assert.match(told[0] ?? "", /^warning: The network of lost has ended/);
  assert.ok(engine.find("lost"));
});

test("the parent starts a stopped net, and leaves a running one alone", async (fake) => {
  const { instance, engine, log } = fake;
  await keepNet(instance, log);
  assert.equal(engine.asked, []);
  await start(fake);
  const before = engine.asked.length;
  await keepNet(instance, log);
  assert.is(engine.asked.length, before);
  Object.assign(engine.find("fake-net") ?? {}, { state: "exited" });
  await keepNet(instance, log);
  assert.is(engine.find("fake-net")?.state, "running");
});

test("start waits for the services, and warns if they cannot be opened", async (fake) => {
  const { engine, instance, told } = fake;
  const { started } = engine;
  engine.started = (container) => {
    started(container);
    const present = readParentState(instance);
    if (!present) return;
    setTimeout(() => {
      writeParentState(instance, { ...present, servicesFault: "no right" });
    }, 50);
    const shared = { open: [], taken: [] };
    writeParentState(instance, { ...present, shared });
  };
  await start(fake);
  assert.equal(told, ["warning: Workers get no services: no right"]);
  // A port that a worker occupies is not waited for.
  const present = readParentState(instance) as ParentState;
  writeParentState(instance, {
    ...present,
    servicesFault: null,
    shared: { open: [], taken: [8000] },
  });
  await waitForPorts(instance);
  // A parent of an earlier version has no such list.
  const { shared: _, ...former } = present;
  writeParentState(instance, former);
  await waitForPorts(instance);
  // Nor anything without a parent.
  Object.assign(engine.find("fake-parent") ?? {}, { state: "exited" });
  writeParentState(instance, { ...present, servicesFault: "no right" });
  await waitForPorts(instance);
});

test("stop removes the forwarder of an earlier version with the network", async (fake) => {
  const { engine, instance, labels, log } = fake;
  await start(fake);
  engine.add("fake-mcp", {
    spec: { Labels: labels({ [label.role]: "forwarder" }) },
  });
  await stopDaemon(instance, log);
  assert.equal(engine.names(), []);
});

test("does not use or remove a container that belongs to something else", async (fake) => {
  const { instance, engine, log } = fake;
  for (const name of ["fake-net", "fake-parent"]) {
    engine.add(name, { spec: { Labels: { [label.instance]: "other" } } });
    assert.is((await failureOf(start(fake))).kind, "busy");
    if (name === "fake-parent") {
      assert.is((await failureOf(stopDaemon(instance, log))).kind, "busy");
    }
    assert.ok(engine.find(name));
    engine.containers.length = 0;
  }
});

test("status combines Docker's and the parent's state, without a former parent's", async (fake) => {
  const { instance, engine } = fake;
  assert.is((await daemonStatus(instance)).parent, "absent");
  await start(fake);
  worker(fake);
  const status = await daemonStatus(instance);
  assert.is(status.parent, "running");
  assert.is(status.build, "digest");
  assert.is(status.chromadb, true);
  assert.is(status.workers, 1);
  assert.is(status.volumes.length, 3);
  assert.is(status.readyMs, 5);
  const parent = engine.find("fake-parent") as FakeContainer;
  writeParentState(instance, {
    ...state,
    container: parent.id,
    chromadbFault: "it does not listen",
  });
  assert.is((await daemonStatus(instance)).chromadb, false);
  writeParentState(instance, { ...state, container: "former" });
  assert.is((await daemonStatus(instance)).chromadb, null);
  parent.state = "paused";
  assert.is((await daemonStatus(instance)).parent, "paused");
  parent.state = "exited";
  assert.is((await daemonStatus(instance)).parent, "stopped");
  assert.ok(readParentState(instance));
});

test("waits until ChromaDB answers, but not for one that keeps ending", async ({ instance }) => {
  const says = (restarts: number, chromadbFault: string | null) =>
    writeParentState(instance, {
      ...state,
      chromadbFault,
      children: [{ name: "chromadb", pid: null, restarts }],
    });
  says(3, "it does not listen");
  const waiting = waitForChromadb(instance);
  says(9, null);
  await waiting;
  says(4, "it does not listen");
  const startedAt = Date.now();
  const failure = await waitForChromadb(instance).catch((error) => error);
  assert.match(failure.message, "ChromaDB does not start: it ends each time");
  assert.match(failure.hint, /logs.*chromadb/);
  assert.ok(Date.now() - startedAt < 30_000);
});

test.run();
