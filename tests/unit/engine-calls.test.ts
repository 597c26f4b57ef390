// Common calls to the engine and the handling of its errors, on a fake engine.

import { setTimeout as sleep } from "node:timers/promises";
import { Readable } from "node:stream";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  type Docker,
  dropImage,
  environmentOf,
  findContainer,
  inspectContainer,
  inspectImage,
  readLog,
  removeContainer,
} from "../../lib/docker/docker.ts";
import { connectionFault, statusOf } from "../../lib/docker/docker-errors.ts";
import { execIn, processNames } from "../../lib/docker/exec.ts";
import { ownContainer, unpause } from "../../lib/instance/container.ts";
import { followEvents } from "../../lib/instance/events.ts";
import { findParent } from "../../lib/instance/instance.ts";
import { label } from "../../lib/instance/labels.ts";
import { waitFor } from "../../lib/std/wait.ts";
import { type FakeInstance, fakeInstance } from "../helper/fake-engine.ts";

const test = suite<FakeInstance>("engine calls");

test.before.each((context) => void Object.assign(context, fakeInstance()));
test.after.each(({ end }) => end());

const failureOf = (
  promise: Promise<unknown>,
): Promise<Error & { kind: string; hint?: string }> =>
  promise.then(() => assert.unreachable() as never, (error) => error);

test("a missing container is undefined, and an engine failure throws", async ({ instance, engine }) => {
  const { docker } = instance;
  assert.is(await inspectContainer(docker, "gone"), undefined);
  assert.is((await findContainer(docker, "fake-net")).Name, "/fake-net");
  const failure = await failureOf(findContainer(docker, "gone"));
  assert.is(failure.kind, "notFound");
  const broken = (json?: object) => ({
    ...engine.docker,
    getContainer: () => ({
      inspect: () =>
        Promise.reject(
          Object.assign(new Error("broken"), { statusCode: 500, json }),
        ),
    }),
  } as unknown as Docker);
  assert.is(
    (await failureOf(inspectContainer(broken(), "x"))).message,
    "broken",
  );
  // Podman's answer while it is removed.
  const removed = broken({ cause: "no such container" });
  assert.is(await inspectContainer(removed, "x"), undefined);
});

test("readLog() returns bytes, also of JSON, and throws Podman's late errors", async ({ engine }) => {
  const answering = (log: unknown) => ({
    ...engine.docker,
    getContainer: () => ({ logs: () => Promise.resolve(log) }),
  } as unknown as Docker);
  const text = async (log: unknown) =>
    new TextDecoder().decode(await readLog(answering(log), "w"));
  assert.is(await text(new TextEncoder().encode("words")), "words");
  assert.is(await text({ result: "words" }), '{"result":"words"}');
  // Its status is 200 if the container is removed meanwhile.
  const late = { cause: "no such container", message: "gone" };
  const failure = await failureOf(readLog(answering(late), "w"));
  assert.equal([failure.message, statusOf(failure)], ["gone", 404]);
});

test("waits for a removal that another command has started", async ({ instance, engine }) => {
  engine.add("w");
  engine.refuses.set("remove w", 409);
  let removed = false;
  const removal = removeContainer(instance.docker, "w")
    .then(() => removed = true);
  await sleep(50);
  assert.is(removed, false);
  engine.containers.splice(-1);
  await removal;
  // Removing a missing container is not an error.
  await removeContainer(instance.docker, "w");
  engine.add("x");
  engine.refuses.set("remove x", 500);
  await failureOf(removeContainer(instance.docker, "x"));
});

test("dropImage() keeps an image that has a name or is in use", async ({ instance, engine }) => {
  const image = (name: string, RepoTags: string[]) =>
    engine.images.set(name, { Id: name, RepoTags });
  image("named", ["a:b"]);
  image("used", []);
  image("free", []);
  engine.refuses.set("rmi used", 409);
  for (const name of ["named", "used", "free", "gone"]) {
    await dropImage(instance.docker, name);
  }
  assert.equal(engine.asked, ["rmi used", "rmi free"]);
  image("free", []);
  image("free", []); // again
  engine.refuses.set("rmi free", 500);
  await failureOf(dropImage(instance.docker, "free"));
});

test("inspectImage() finds no image with an illegal name", async () => {
  const asked: string[] = [];
  const answering = (statusCode: number) =>
    ({
      getImage: (name: string) => ({
        inspect: () => {
          asked.push(name);
          return Promise.reject(Object.assign(new Error("no"), { statusCode }));
        },
      }),
    }) as unknown as Docker;
  assert.is(await inspectImage(answering(400), "No Such"), undefined);
  assert.is(await inspectImage(answering(404), "r/x:tag"), undefined);
  assert.equal(asked, ["No%20Such", "r/x:tag"]);
  await failureOf(inspectImage(answering(500), "x"));
});

test("environmentOf() keeps equals signs in values", () => {
  const container = { Config: { Env: ["A=b=c", "EMPTY="] } };
  assert.equal(
    environmentOf(container as unknown as Docker.ContainerInspectInfo),
    { A: "b=c", EMPTY: "" },
  );
  assert.equal(environmentOf(undefined), {});
});

test("execIn() passes variables, and returns exit code and output", async ({ instance, engine }) => {
  engine.run = (command) => ({ exitCode: 7, output: command.join(" ") });
  const result = await execIn(instance.docker, "fake-net", ["a", "b"]);
  assert.equal(result, { exitCode: 7, output: "a b" });
  const failure = await failureOf(execIn(instance.docker, "gone", ["a"]));
  assert.match(failure.message, /^Cannot run a in the container: no such/);
});

/** A docker client whose exec prints the content of `stream`. */
function printing(stream: Readable): Docker {
  return {
    getContainer: () => ({
      exec: () =>
        Promise.resolve({
          start: () => Promise.resolve(stream),
          inspect: () => Promise.resolve({ ExitCode: 0 }),
        }),
    }),
  } as unknown as Docker;
}

test("execIn() times out a command that does not exit", async () => {
  const never = new Readable({ read: () => {} });
  const failure = await failureOf(
    execIn(printing(never), "w", ["sleep"], { timeoutMs: 50 }),
  );
  assert.match(failure.message, /^sleep in container [\w-]+ did not exit/);
  assert.ok(never.destroyed);
});

test("execIn() stops a command that prints without end", async () => {
  const endless = new Readable({
    read() {
      this.push(new Uint8Array(1024 * 1024));
    },
  });
  const failure = await failureOf(execIn(printing(endless), "w", ["yes"]));
  assert.match(failure.message, /^yes in container [\w-]+ /);
  assert.ok(endless.destroyed);
});

test("processNames() lists the processes of a container", async ({ instance, engine }) => {
  engine.add("w", { programs: ["claude"] });
  assert.equal(await processNames(instance.docker, "w"), [
    "tini",
    "sleep",
    "claude",
  ]);
});

test("ownContainer() refuses a container of another instance, role or home", async ({ instance, engine, labels }) => {
  const own = () => ownContainer(instance, "w", "worker");
  assert.is(await own(), undefined);
  const container = engine.add("w", { spec: { Labels: labels() } });
  assert.is((await own())?.Id, container.id);
  const others = [
    { [label.instance]: "other" },
    { [label.role]: "parent" },
    { [label.home]: "/elsewhere" },
  ];
  for (const other of others) {
    container.spec.Labels = labels(other);
    assert.is((await failureOf(own())).kind, "busy");
  }
  container.spec.Labels = {};
  assert.is((await failureOf(own())).kind, "busy");
  // Created before homes were recorded.
  const { [label.home]: _, ...rest } = labels();
  container.spec.Labels = rest;
  assert.ok(await own());
});

test("findParent() checks labels and name", async ({ instance, engine }) => {
  assert.ok(await findParent(instance));
  const parent = engine.find("fake-parent");
  assert.ok(parent);
  parent.name = "a-look-at-the-image";
  assert.is(await findParent(instance), undefined);
  const settings = { ...instance.settings, HAL9000_PARENT: parent.name };
  assert.is((await findParent({ ...instance, settings }))?.Id, parent.id);
});

test("findParent() finds a parent of another name, if the settings name it", async ({ instance, engine }) => {
  engine.add("manual");
  const settings = { ...instance.settings, HAL9000_PARENT: "manual" };
  const found = await findParent({ ...instance, settings });
  assert.equal(found?.Names, ["/manual"]);
  const other = { ...instance.settings, HAL9000_PARENT: "other" };
  const none = await findParent({ ...instance, settings: other });
  assert.is(none, undefined);
});

test("unpause() succeeds even if another command was faster", async ({ instance, engine, told, log }) => {
  const container = engine.add("w", { state: "paused" });
  const look = () => findContainer(instance.docker, "w");
  engine.refuses.set("unpause w", 409);
  await unpause(instance.docker, await look(), log);
  engine.refuses.set("unpause w", 500);
  const failure = await failureOf(unpause(instance.docker, await look(), log));
  assert.is(failure.message, "Cannot unpause w: refused");
  // Podman's answer if it is not paused.
  const paused = await look();
  container.state = "running";
  await unpause(instance.docker, paused, log);
  container.state = "paused";
  engine.refuses.clear();
  await unpause(instance.docker, await look(), log);
  assert.is(container.state, "running");
  const before = told.length;
  await unpause(instance.docker, await look(), log);
  assert.is(told.length, before);
});

test("followEvents() reassembles events until it is stopped", async ({ instance }) => {
  const event = (Action: string) =>
    JSON.stringify({
      Action,
      time: 1,
      Actor: { ID: "id", Attributes: { name: "w", [label.role]: "worker" } },
    }) + "\n";
  const stream = new Readable({ read: () => {} });
  const asked: string[] = [];
  const docker = {
    getEvents: ({ filters }: { filters: { event: string[] } }) => {
      asked.push(...filters.event);
      return Promise.resolve(stream);
    },
  } as unknown as Docker;
  const stop = new AbortController();
  const heard: { action: string }[] = [];
  const following = followEvents(
    { docker, prefix: "fake" },
    { actions: ["start", "die", "destroy"], stop: stop.signal },
    (one) => heard.push(one),
  ).catch(() => {});
  const text = event("start") + event("die");
  stream.push(text.slice(0, 10));
  stream.push(text.slice(10, -5));
  stream.push(text.slice(-5));
  await waitFor(() => heard.length === 2, { for: "both", timeoutMs: 2000 });
  assert.equal(heard[0], {
    action: "start",
    id: "id",
    name: "w",
    role: "worker",
    isolated: false,
    at: new Date(1000),
  });
  // Podman's name of "destroy".
  assert.equal(asked, ["start", "die", "destroy", "remove"]);
  stream.push(event("remove"));
  await waitFor(() => heard.length === 3, { for: "it", timeoutMs: 2000 });
  assert.is(heard[2]?.action, "destroy");
  stop.abort();
  await following;
  assert.ok(stream.destroyed);
  assert.is(instance.prefix, "fake");
});

test("statusOf() and connectionFault() distinguish responses from connection errors", () => {
  assert.is(statusOf({ statusCode: 404 }), 404);
  assert.is(statusOf({ statusCode: "404" }), undefined);
  assert.is(statusOf(undefined), undefined);
  const fault = (code: string, syscall: string) =>
    connectionFault({ code, syscall });
  assert.is(fault("ENOENT", "connect"), "there is no socket");
  assert.is(fault("ECONNREFUSED", "connect"), "connection refused");
  assert.is(fault("EACCES", "connect"), "permission denied");
  assert.is(fault("ENOTFOUND", "getaddrinfo"), "unknown host name");
  assert.is(fault("ENOENT", "open"), undefined);
  assert.is(connectionFault(null), undefined);
});

test.run();
