// Opening services to workers: what the parent asks of nsenter, on a fake engine.

import {
  existsSync,
  mkdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { ensureHome } from "../../lib/instance/volumes.ts";
import { insideNsenter, nsenterSpec } from "../../lib/nsenter/container.ts";
import { label } from "../../lib/instance/labels.ts";
import {
  keepServices,
  servicesAnswer,
  servicesChild,
  watchServices,
} from "../../lib/parent/services.ts";
import type { ChildSpec } from "../../lib/parent/supervisor.ts";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { createServer } from "node:net";
import {
  boundedProxy,
  chromadbBounds,
} from "../../lib/gateway/services/bounded-proxy.ts";
import { readOrigins } from "../../lib/std/origin.ts";
import { listen, type Listener } from "../../lib/std/socket-lines.ts";
import { waitFor } from "../../lib/std/wait.ts";
import { servicesOf } from "../../lib/worker/network.ts";
import { type FakeInstance, fakeInstance } from "../helper/fake-engine.ts";

interface Request {
  op: string;
  id?: string;
  mark?: string;
  services?: { port: number; server?: string }[];
  shared?: boolean;
  ids?: string[];
}

interface Context extends FakeInstance {
  asked: Request[];
  /** Worker ids for which nsenter reports an error. */
  broken: string[];
  /** Ports that are occupied in the shared network. */
  taken: number[];
  changes: object[];
  /** In order: "hold PORTS" of the net container, "open PORTS" of nsenter. */
  steps: string[];
  stop: AbortController;
  nsenter: Listener;
  kept: Promise<void>;
}

const test = suite<Context>("services");

test.before.each(async (context) => {
  Object.assign(context, fakeInstance());
  const { instance, engine, labels } = context;
  const net = engine.find("fake-net");
  Object.assign(net ?? {}, {
    spec: {
      ...net?.spec,
      Labels: labels({ [label.role]: "net" }),
      Cmd: ["hold", "8000"],
      Env: ["PATH=/bin", "HAL9000_WORKER_MARK=net"],
    },
  });
  Object.assign(context, {
    asked: [],
    broken: [],
    taken: [],
    changes: [],
    steps: [],
  });
  context.stop = new AbortController();
  mkdirSync(instance.home.nsenter, { recursive: true });
  context.nsenter = await listen(
    `${instance.home.nsenter}/nsenter.sock`,
    (line) => {
      const request = line as Request;
      context.asked.push(request);
      if (context.broken.includes(request.id ?? "")) {
        return Promise.reject(new Error("setns failed"));
      }
      const ports = (request.services ?? []).map(({ port }) => port);
      if (request.shared) context.steps.push(`open ${ports}`);
      const occupied = ports.filter((port) => context.taken.includes(port));
      return Promise.resolve({ taken: request.shared ? occupied : [] });
    },
  );
  engine.run = (command) => {
    if (command[1] !== "set") return { exitCode: 0 };
    context.steps.push(`hold ${command.slice(2)}`);
    return { exitCode: 0, output: '{"held":[],"taken":[]}' };
  };
  engine.images.set("", { Id: "sha256:parent" });
  engine.add("fake-mcp", {
    spec: {
      Labels: labels({ [label.role]: "forwarder" }),
      Cmd: ["carry", "8000", "3050=notes"],
    },
  });
  context.kept = Promise.resolve();
});

test.after.each(async ({ stop, nsenter, kept, end }) => {
  stop.abort();
  await kept;
  await nsenter.close();
  end();
});

function keep(context: Context): void {
  const { instance, stop, log, changes } = context;
  context.kept = keepServices(
    instance,
    stop.signal,
    log,
    (change) => changes.push(change),
  );
}

const until = (holds: () => boolean, what: string) =>
  waitFor(holds, { for: what, timeoutMs: 5000 });

const configure = (
  { instance: { home } }: Context,
  mcpServers: Record<string, object>,
) => writeFileSync(home.mcpConfig, JSON.stringify({ mcpServers }));

const cat = { command: "/bin/cat", port: 3050 };

test("opens ChromaDB and the MCP servers in the shared network, after holding their ports", async (context) => {
  const { asked, steps, engine, changes } = context;
  configure(context, { notes: cat });
  keep(context);
  await until(() => changes.length >= 2, "the services");
  const open = asked.find(({ op }) => op === "open");
  const net = engine.find("fake-net");
  assert.is(open?.id, net?.id);
  assert.is(open?.mark, "HAL9000_WORKER_MARK=net");
  assert.equal(open?.services, [
    { port: 8000 },
    { port: 443 },
    { port: 3050, server: "notes" },
  ]);
  assert.equal(steps.slice(0, 2), ["hold 8000,443,3050", "open 8000,443,3050"]);
  assert.equal(changes, [
    { shared: { open: [8000, 443, 3050], taken: [] } },
    { servicesFault: null },
  ]);
  // nsenter keeps what is open there.
  const kept = asked.find(({ op }) => op === "keep");
  assert.equal(kept?.ids, [net?.id]);
});

test("removes the forwarder of an earlier version first, with its sockets", async (context) => {
  const { instance: { home }, engine, asked } = context;
  mkdirSync(home.services, { recursive: true });
  const left = [home.service(3050), `${home.ways}/forward.sock`];
  for (const path of [...left, home.service(3128)]) writeFileSync(path, "");
  keep(context);
  await until(() => asked.some(({ op }) => op === "open"), "the services");
  assert.is(engine.find("fake-mcp"), undefined);
  assert.equal(left.filter((path) => existsSync(path)), []);
  assert.ok(existsSync(home.service(3128)));
});

test("opens a new server within a second, and repeats until a taken port is free", async (context) => {
  const { steps, changes } = context;
  keep(context);
  await until(() => steps.includes("open 8000,443"), "the services");
  context.taken = [3050];
  configure(context, { notes: cat });
  const last = () => JSON.stringify(changes.at(-1));
  const says = (shared: object) => () => last() === JSON.stringify({ shared });
  await until(says({ open: [8000, 443], taken: [3050] }), "a taken port");
  assert.ok(steps.includes("hold 8000,443,3050"));
  context.taken = [];
  await until(says({ open: [8000, 443, 3050], taken: [] }), "the port");
});

test("opens them again when the network or nsenter was started anew", async (context) => {
  const { steps, engine } = context;
  keep(context);
  await until(() => steps.length === 2, "the services");
  await until(() => engine.followers > 0, "events");
  const net = engine.find("fake-net");
  if (!net) return assert.unreachable();
  net.startedAt = new Date(Date.now() + 1000).toISOString();
  engine.emit("start", net);
  await until(() => steps.length === 4, "the services");
  assert.equal(steps.slice(2), ["hold 8000,443", "open 8000,443"]);
  const nsenter = engine.find("fake-nsenter");
  if (nsenter) engine.emit("die", nsenter);
  await until(() => steps.length === 5, "the services");
});

test("the egress proxy is open to isolated workers alone", ({ instance }) => {
  mkdirSync(instance.home.services, { recursive: true });
  writeFileSync(instance.home.egressSocket, "");
  assert.equal(servicesOf(instance, "shared"), [
    { port: 8000 },
    { port: 443 },
  ]);
  assert.equal(servicesOf(instance, "isolated"), [
    { port: 443 },
    { port: 3128 },
    { port: 8000 },
  ]);
});

test("the relay's port stays open for its sessions when the setting is turned off", ({ instance }) => {
  const ports = () => servicesOf(instance, "shared").map(({ port }) => port);
  assert.equal(ports(), [8000, 443]);
  Object.assign(instance.settings, { HAL9000_RELAY: "off" });
  assert.equal(ports(), [8000]);
  mkdirSync(instance.home.relayGrants, { recursive: true });
  writeFileSync(join(instance.home.relayGrants, "one.json"), "{}");
  assert.equal(ports(), [8000, 443]);
});

test("MCP servers behind a tunnel are served in the parent", (context) => {
  const { instance } = context;
  configure(context, { notes: cat });
  const command = () => servicesChild(instance).command.slice(1);
  assert.equal(command(), ["serve", "8000"]);
  mkdirSync(instance.home.ways, { recursive: true });
  writeFileSync(instance.home.tunnel, "{}");
  assert.equal(command(), ["serve", "8000", "3050=notes"]);
  assert.equal(servicesOf(instance, "shared"), [
    { port: 8000 },
    { port: 443 },
    { port: 3050 },
  ]);
});

test("a worker in which nothing can be opened keeps the services from no other", async (context) => {
  const { instance, engine, labels, asked, changes } = context;
  mkdirSync(instance.home.services, { recursive: true });
  const ids = ["broken", "whole"].map((name) => {
    const spec = {
      Labels: labels({
        [label.role]: "worker",
        [label.network]: "isolated",
      }),
      Env: [`HAL9000_WORKER_MARK=${name}`],
    };
    return engine.add(`fake-worker-${name}`, { spec }).id;
  });
  context.broken = [ids[0] ?? ""];
  keep(context);
  const opened = (id: string | undefined) =>
    asked.filter(({ op, id: of }) => op === "open" && of === id).length;
  await until(() => asked.some(({ op }) => op === "keep"), "the end");
  assert.ok(opened(ids[1]) > 0);
  await until(() => JSON.stringify(changes).includes("setns"), "a report");
  assert.equal(changes.at(-1), {
    servicesFault: '"fake-worker-broken": setns failed',
  });
  // It is asked again, but does not make others wait again.
  const [before, others] = [opened(ids[0]), opened(ids[1])];
  await until(() => opened(ids[1]) > others + 1, "further attempts");
  assert.ok(opened(ids[0]) > before);
  assert.ok(opened(ids[0]) <= before + 3);
  context.broken = [];
  await until(
    () => JSON.stringify(changes.at(-1)) === '{"servicesFault":null}',
    "the services",
  );
});

test("the users of services and nsenter cannot put sockets in the place of others", ({ instance }) => {
  const { home } = instance;
  rmSync(home.home, { recursive: true });
  ensureHome(instance);
  for (const path of [home.ways, home.services, home.mcp]) {
    assert.is(statSync(path).mode & 0o777, 0o750, path);
  }
  const mounts = nsenterSpec(instance, "image").HostConfig?.Mounts ?? [];
  const writable = mounts.filter(({ ReadOnly }) => !ReadOnly);
  assert.equal(writable.map(({ Target }) => Target), [insideNsenter.run]);
});

test("services answers also without ChromaDB, and a hanging one does not", async ({ instance }) => {
  mkdirSync(instance.home.services, { recursive: true });
  const path = instance.home.service(8000);
  assert.not(await servicesAnswer(instance), "no process");
  const none = { socketPath: "/nowhere.sock" };
  const slots = { served: 0, waiting: 0 };
  const served = boundedProxy(none, {
    ...chromadbBounds,
    slots: { get: slots, search: slots, small: slots, large: slots },
  });
  readOrigins(served, () => {});
  await once(served.listen(path), "listening");
  assert.ok(await servicesAnswer(instance));
  served.close();
  const hanging = createServer().listen(path);
  await once(hanging, "listening");
  assert.not(await servicesAnswer(instance, 100), "a hanging process");
  hanging.close();
  assert.ok(servicesChild(instance).watch);
});

test("the process is started anew only when it has to serve others", async (context) => {
  const { instance, stop } = context;
  const steps: string[] = [];
  const supervisor = {
    end: (name: string) => Promise.resolve(void steps.push(`end ${name}`)),
    start: ({ command }: ChildSpec) => void steps.push(command.join(" ")),
  };
  context.kept = watchServices(instance, supervisor, stop.signal);
  await sleep(1500);
  assert.equal(steps, []);
  configure(context, { notes: cat });
  mkdirSync(instance.home.ways, { recursive: true });
  writeFileSync(instance.home.tunnel, "{}");
  await until(() => steps.length === 2, "another process");
  const command = "/scripts/services serve 8000 3050=notes";
  assert.equal(steps, ["end services", command]);
});

test.run();
