// The services of isolated workers, with a fake engine and a fake nsenter.

import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { label } from "../../lib/instance/labels.ts";
import { Nsenter, NsenterLost } from "../../lib/nsenter/container.ts";
import { keepServices } from "../../lib/parent/services.ts";
import { waitFor } from "../../lib/std/wait.ts";
import {
  type FakeContainer,
  type FakeInstance,
  fakeInstance,
} from "../helper/fake-engine.ts";

interface Asked {
  op: string;
  id?: string;
  ids?: string[];
  services?: { port: number }[];
  for?: string;
}

interface Context extends FakeInstance {
  nsenter: {
    asked: Asked[];
    /** Its answer, or the message of an error. */
    answer: (request: Asked) => object | string;
    connections: Set<Socket>;
    server: Server;
  };
  stop: AbortController;
  faults: (string | null)[];
  said: string[];
  begin: () => Promise<void>;
  ended: Promise<void>;
}

const test = suite<Context>("isolated");

test.before.each(async (context) => {
  Object.assign(context, fakeInstance());
  const { instance, engine } = context;
  engine.containers.length = 0;
  engine.images.set("", { Id: "sha256:parent" });
  for (const directory of [instance.home.nsenter, instance.home.services]) {
    mkdirSync(directory, { recursive: true });
  }
  const connections = new Set<Socket>();
  const server = createServer((socket) => {
    connections.add(socket);
    socket.on("close", () => connections.delete(socket));
    socket.on("error", () => {});
    socket.on("data", (line) => {
      const request = JSON.parse(String(line)) as Asked;
      context.nsenter.asked.push(request);
      const result = context.nsenter.answer(request);
      const reply = typeof result === "string"
        ? { ok: false, kind: "failed", message: result }
        : { ok: true, result };
      socket.write(`${JSON.stringify(reply)}\n`);
    });
  });
  context.nsenter = { asked: [], answer: usual, connections, server };
  const socket = join(instance.home.nsenter, "nsenter.sock");
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  context.stop = new AbortController();
  context.faults = [];
  context.said = [];
  context.ended = Promise.resolve();
  context.begin = async () => {
    context.ended = keepServices(
      instance,
      context.stop.signal,
      (line) => context.said.push(line),
      ({ servicesFault }) => {
        if (servicesFault !== undefined) context.faults.push(servicesFault);
      },
    );
    await until(() => engine.followers > 0, "it to follow events");
  };
});
test.after.each(async ({ stop, ended, nsenter, end }) => {
  stop.abort();
  await ended;
  for (const socket of nsenter.connections) socket.destroy();
  await new Promise((resolve) => nsenter.server.close(resolve));
  end();
});

const usual = ({ op }: Asked) => op === "open" ? { taken: [] } : {};

const until = (is: () => boolean, what: string) =>
  waitFor(is, { for: what, timeoutMs: 5000 });

function worker(
  { engine, labels }: Context,
  name: string,
  network = "isolated",
): FakeContainer {
  return engine.add(name, {
    spec: {
      Labels: labels({ [label.network]: network }),
      Env: [`HAL9000_WORKER_MARK=${name}`],
    },
  });
}

const service = ({ instance }: Context, port: number) =>
  join(instance.home.services, `${port}.sock`);

/** Ids and ports of the requests to open, in order. */
const opened = ({ nsenter }: Context) =>
  nsenter.asked.filter(({ op }) => op === "open")
    .map(({ id, services = [] }) => [id, services.map(({ port }) => port)]);

test("opens the services in running isolated workers, and in no others", async (context) => {
  const one = worker(context, "one");
  const warm = worker(context, context.instance.names.warm("0a1b2c3d"));
  worker(context, "shared", "shared");
  worker(context, "ended").state = "exited";
  writeFileSync(service(context, 8000), "");
  writeFileSync(service(context, 3128), "");
  writeFileSync(join(context.instance.home.services, "other"), "");
  await context.begin();
  await until(() => context.faults.length > 0, "a report");
  assert.equal(opened(context).slice(0, 2), [
    [one.id, [443, 3128, 8000]],
    [warm.id, [443, 3128, 8000]],
  ]);
  assert.equal(context.faults, [null]);
  assert.equal(context.said, []);
});

test("opens them in a worker that starts, and when a service comes or goes", async (context) => {
  await context.begin();
  const one = worker(context, "one");
  writeFileSync(service(context, 3128), "");
  context.engine.emit("start", worker(context, "shared", "shared"));
  context.engine.emit("start", one);
  await until(() => opened(context).length > 0, "a worker that starts");
  assert.equal(opened(context)[0], [one.id, [443, 3128, 8000]]);
  writeFileSync(service(context, 3001), "");
  await until(
    () => opened(context).at(-1)?.[1]?.length === 3,
    "a service that comes",
  );
  rmSync(service(context, 3128));
  await until(
    () => String(opened(context).at(-1)?.[1]) === "443,3001,8000",
    "a service that goes",
  );
  assert.ok(opened(context).every(([id]) => id === one.id));
});

test("closes them in workers that are gone", async (context) => {
  const one = worker(context, "one");
  const two = worker(context, "two");
  await context.begin();
  await until(() => context.faults.length > 0, "a report");
  two.state = "exited";
  context.engine.containers.splice(1, 1);
  context.engine.emit("die", two);
  const kept = () => context.nsenter.asked.findLast(({ op }) => op === "keep");
  await until(() => kept()?.ids?.length === 1, "it to close");
  assert.equal(kept()?.ids, [one.id]);
});

test("starts nsenter if it is lost, and opens everything again", async (context) => {
  const { nsenter, engine, faults, said } = context;
  const one = worker(context, "one");
  const two = worker(context, "two");
  await context.begin();
  await until(() => faults.length > 0, "a report");
  for (const socket of nsenter.connections) socket.destroy();
  nsenter.asked.splice(0);
  engine.emit("start", one);
  await until(() => opened(context).length > 1, "all workers");
  assert.is(engine.find("fake-nsenter")?.state, "running");
  assert.ok(nsenter.asked.some(({ for: what }) => what === "listeners"));
  assert.equal(opened(context).map(([id]) => id), [one.id, two.id]);
  assert.equal([faults, said], [[null], []]);
});

test("reports why services cannot be opened, tries again, and reports that they are", async (context) => {
  const { nsenter, faults, said } = context;
  worker(context, "one");
  nsenter.answer = ({ op }) => op === "open" ? "no rights" : {};
  await context.begin();
  await waitFor(() => faults.length > 0, { for: "a fault", timeoutMs: 10_000 });
  nsenter.answer = usual;
  await waitFor(() => faults.length > 1, { for: "none", timeoutMs: 10_000 });
  assert.equal(faults, ['"one": no rights', null]);
  assert.equal(said, ['Services of workers: "one": no rights']);
});

test("tells of ports of services that a worker occupies", async (context) => {
  worker(context, "greedy");
  context.nsenter.answer = ({ op }) => op === "open" ? { taken: [8000] } : {};
  await context.begin();
  await until(() => context.said.length > 0, "the message");
  assert.is(context.said[0], '"greedy" occupies ports of services: 8000');
});

test("closes its connection when it is stopped, so that the parent can end", async (context) => {
  worker(context, "one");
  await context.begin();
  await until(() => context.faults.length > 0, "a report");
  assert.is(context.nsenter.connections.size, 1);
  context.stop.abort();
  await context.ended;
  await until(() => context.nsenter.connections.size === 0, "its end");
});

test("Nsenter.open() tries again while the worker's process has only begun", async ({ instance, nsenter }) => {
  const client = new Nsenter(instance);
  const services = [{ port: 8000 }];
  const request = { id: "1", pid: 2, mark: "m", services, shared: false };
  let left = 3;
  nsenter.answer = () => left-- > 0 ? "another process" : { taken: [8000] };
  assert.equal(await client.open(request), [8000]);
  assert.is(nsenter.asked.length, 4);
  client.close();
});

test("Nsenter.open() gives up with the last error, and at once if nsenter is lost", async ({ instance, nsenter }) => {
  const client = new Nsenter(instance);
  const request = { id: "1", pid: 2, mark: "m", services: [], shared: false };
  nsenter.answer = () => "another process";
  const failureOf = async () => {
    const startedAt = performance.now();
    const error = await client.open(request).then(
      () => assert.unreachable() as never,
      (error) => error,
    );
    return { error, ms: performance.now() - startedAt };
  };
  const refused = await failureOf();
  assert.is(refused.error.message, "another process");
  assert.ok(refused.ms > 2500 && refused.ms < 10_000, `${refused.ms}`);
  for (const socket of nsenter.connections) socket.destroy();
  await new Promise((resolve) => nsenter.server.close(resolve));
  const lost = await failureOf();
  assert.instance(lost.error, NsenterLost);
  assert.ok(lost.ms < 1000, `${lost.ms}`);
});

test.run();
