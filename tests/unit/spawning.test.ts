// Spawning workers, on a fake engine.

import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { FailureKind } from "../../lib/std/errors.ts";
import { inodeOf } from "../../lib/std/hostpath.ts";
import { label } from "../../lib/instance/labels.ts";
import { readRecord, writeRecord } from "../../lib/instance/record.ts";
import { resolveProject, sessionName } from "../../lib/project/project.ts";
import { spawnOnce } from "../../lib/session/spawn-once.ts";
import { claimOrSpawn } from "../../lib/session/worker.ts";
import type { SpawnRequest } from "../../lib/worker/request.ts";
import { prepareWorker, spawnWorker } from "../../lib/worker/spawn.ts";
import {
  findWorker,
  listWorkers,
  liveWorkers,
  withoutNetwork,
} from "../../lib/worker/workers.ts";
import { oomText, usage, workersStatus } from "../../lib/worker/status.ts";
import {
  type FakeContainer,
  type FakeInstance,
  fakeInstance,
} from "../helper/fake-engine.ts";

const test = suite<FakeInstance>("spawning");

test.before.each((context) => void Object.assign(context, fakeInstance()));
test.after.each(({ end }) => end());

function requestFor(
  { project }: FakeInstance,
  change: Partial<SpawnRequest> = {},
): SpawnRequest {
  return { directory: project("app"), cwd: "/", name: "mine", ...change };
}

const spawn = (fake: FakeInstance, change: Partial<SpawnRequest> = {}) =>
  spawnWorker(fake.instance, requestFor(fake, change), fake.log);

const failureOf = (
  promise: Promise<unknown>,
): Promise<Error & { kind: string; hint?: string }> =>
  promise.then(() => assert.unreachable() as never, (error) => error);

function mountsOf({ engine }: FakeInstance, name: string) {
  return (engine.find(name)?.spec.HostConfig?.Mounts ?? [])
    .map(({ Source, Target, ReadOnly }) =>
      `${Source}:${Target}${ReadOnly ? ":ro" : ""}`
    );
}

test("starts and records a worker for its project", async (fake) => {
  const { instance, engine, project } = fake;
  const worker = await spawn(fake);
  assert.equal(worker, {
    id: engine.find("mine")?.id,
    name: "mine",
    project: project("app"),
    image: "repo:worker",
  });
  const { createdAt: _, home, ...record } = readRecord(instance, "mine") ?? {};
  assert.match(home ?? "", /^workers\/mine-/);
  assert.equal(record, {
    version: 1,
    worker: "mine",
    container: worker.id,
    session: null,
    project: {
      path: project("app"),
      ...instance.owner,
      inode: inodeOf(project("app")),
    },
    image: "repo:worker",
    born: "cold",
    ephemeral: false,
    secrets: null,
    memoryBytes: 4 * 1024 ** 3,
    oomKilledAt: null,
  });
  const { HostConfig } = engine.find("mine")?.spec ?? {};
  assert.is(HostConfig?.NetworkMode, "container:fake-net");
  assert.is(HostConfig?.PidsLimit, 100);
  const mounts = mountsOf(fake, "mine");
  assert.ok(mounts.includes(`${project("app")}:/workspace`));
  const { netFiles } = instance.home;
  assert.ok(mounts.includes(`${netFiles}/resolv.conf:/etc/resolv.conf:ro`));
  assert.ok(engine.volumes.has(instance.names.volumes.plugins));
});

test("a worker without a name gets a generated name and a temporary home", async (fake) => {
  const { name } = await spawn(fake, { name: undefined });
  assert.match(name, /^fake-worker-[0-9a-f]{8}$/);
  assert.is(readRecord(fake.instance, name)?.ephemeral, true);
});

test("the limit of processes is the setting, else the image's, else 100", async (fake) => {
  const { engine, instance } = fake;
  const limit = async (
    settings: object,
    change: Partial<SpawnRequest> = {},
  ) => {
    const own = {
      ...instance,
      settings: { ...instance.settings, ...settings },
    };
    const { name } = await spawnWorker(
      own,
      requestFor(fake, { name: undefined, ...change }),
      fake.log,
    );
    return engine.find(name)?.spec.HostConfig?.PidsLimit;
  };
  engine.images.set("repo:worker-node", {
    Config: { Labels: { [label.pids]: "2048" } },
  });
  const image = "repo:worker-node";
  assert.is(await limit({}), 100);
  assert.is(await limit({}, { image }), 2048);
  assert.is(await limit({ WORKER_PIDS_LIMIT: 7 }, { image }), 7);
  assert.is(await limit({}, { image, limited: false }), undefined);
});

test("reports a repository with Git LFS in a worker without it", async (fake) => {
  const { engine, project, told } = fake;
  const labels = (more = {}) => ({
    Config: { Labels: { [label.inputs]: "x", ...more } },
  });
  const lfsLines = async (image: object, text: string) => {
    engine.images.set("repo:worker", image);
    writeFileSync(join(project("app"), ".gitattributes"), text);
    told.length = 0;
    await spawn(fake, { name: undefined });
    return told.filter((line) => line.includes("Git LFS")).length;
  };
  const attributes = "*.psd filter=lfs diff=lfs merge=lfs -text\n";
  // Not a repository.
  assert.is(await lfsLines(labels(), attributes), 0);
  mkdirSync(join(project("app"), ".git"));
  assert.is(await lfsLines(labels(), attributes), 1);
  assert.is(await lfsLines(labels(), "*.psd -text\n"), 0);
  assert.is(await lfsLines(labels({ [label.lfs]: "true" }), attributes), 0);
  // Nothing is known of an image that is not ours.
  assert.is(await lfsLines({ Config: {} }, attributes), 0);
});

test("a worker has the caller's time zone, unless --env sets another", async (fake) => {
  const { timeZone = "UTC" } = Intl.DateTimeFormat().resolvedOptions();
  const zones = async (env: string[]) => {
    const { name } = await spawn(fake, { name: undefined, env });
    return fake.engine.find(name)?.spec.Env?.filter((one) =>
      one.startsWith("TZ=")
    ).at(-1);
  };
  assert.is(await zones([]), `TZ=${timeZone}`);
  assert.is(await zones(["TZ=Asia/Tokyo"]), "TZ=Asia/Tokyo");
});

test("resolves a relative directory against the caller's directory", async (fake) => {
  const { project, root } = fake;
  project("app");
  const worker = await spawn(fake, { directory: "app", cwd: root });
  assert.is(worker.project, join(root, "app"));
});

test("a standalone worker has its own network and needs no parent", async (fake) => {
  const { engine } = fake;
  engine.containers.length = 0;
  await spawn(fake, { standalone: true });
  const { HostConfig } = engine.find("mine")?.spec ?? {};
  assert.is(HostConfig?.NetworkMode, "bridge");
  assert.not(mountsOf(fake, "mine").some((one) => one.includes("/etc/hosts")));
});

const withoutParent: [string, (parent: FakeContainer) => void, RegExp][] = [
  ["stopped", (parent) => parent.state = "exited", /the parent is not running/],
  ["paused", (parent) => parent.state = "paused", /the parent is paused/],
];
for (const [state, change, message] of withoutParent) {
  test(`refuses to spawn while the parent is ${state}`, async (fake) => {
    change(fake.engine.find("fake-parent") as FakeContainer);
    const failure = await failureOf(spawn(fake));
    assert.is(failure.kind, "notFound");
    assert.match(failure.message, message);
    assert.match(failure.hint ?? "", /claudy daemon start/);
    assert.equal(fake.engine.asked, []);
  });
}

test("refuses to spawn into a stopped net", async (fake) => {
  Object.assign(fake.engine.find("fake-net") ?? {}, { state: "exited" });
  const failure = await failureOf(spawn(fake));
  assert.is(failure.message, "Cannot spawn: fake-net is not running");
});

test("adds the requested mounts", async (fake) => {
  const { project } = fake;
  const data = project("data");
  await spawn(fake, { mounts: [`${data}:/data:ro`, `${data}:/more`] });
  const mounts = mountsOf(fake, "mine");
  assert.ok(mounts.includes(`${data}:/data:ro`));
  assert.ok(mounts.includes(`${data}:/more`));
});

for (const directory of ["/etc", "/"]) {
  test(`refuses ${directory} as project`, async (fake) => {
    const failure = await failureOf(spawn(fake, { directory }));
    assert.is(failure.kind, "unsafe");
    assert.equal(fake.engine.asked, []);
  });
}

test("refuses to mount a system directory unless any path is allowed", async (fake) => {
  const mounts = ["/etc:/data:ro"];
  const failure = await failureOf(spawn(fake, { mounts }));
  assert.is(failure.kind, "unsafe");
  await spawn(fake, { mounts, allowAnyPath: true });
  assert.ok(mountsOf(fake, "mine").includes("/etc:/data:ro"));
});

test("mounts secrets, and removes them if the worker does not start", async (fake) => {
  const { instance, engine } = fake;
  const secrets = [{ name: "TOKEN", value: "s3cret" }];
  await spawn(fake, { secrets });
  const name = readRecord(instance, "mine")?.secrets ?? "";
  const directory = instance.home.workerSecrets(name);
  assert.ok(mountsOf(fake, "mine").includes(`${directory}:/run/secrets:ro`));
  assert.not(JSON.stringify(engine.find("mine")?.spec).includes("s3cret"));
  engine.refuses.set("start other", 500);
  await failureOf(spawn(fake, { name: "other", secrets }));
  const kept = readdirSync(join(instance.home.secrets, "workers"));
  assert.equal(kept, [name]);
});

test("leaves none of several secrets if one cannot be written", async (fake) => {
  const names = ["TOKEN", "T".repeat(300)];
  const secrets = names.map((name) => ({ name, value: "s3cret" }));
  await failureOf(spawn(fake, { secrets }));
  const { home } = fake.instance;
  assert.equal(readdirSync(join(home.secrets, "workers")), []);
  assert.equal(readdirSync(home.workers), []);
});

test("a worker that cannot start leaves no container, record or new home", async (fake) => {
  const { instance, engine } = fake;
  engine.refuses.set("start mine", 500);
  const failure = await failureOf(spawn(fake));
  assert.is(failure.message, 'Cannot start worker "mine": refused');
  assert.not(engine.find("mine"));
  assert.is(readRecord(instance, "mine"), undefined);
  assert.equal(readdirSync(instance.home.workers), []);
});

test("leaves no secrets if an engine that stops answering neither starts nor removes a worker", async (fake) => {
  const { instance, engine } = fake;
  engine.refuses.set("start mine", 500);
  engine.refuses.set("remove mine", 500);
  const secrets = [{ name: "TOKEN", value: "s3cret" }];
  const failure = await failureOf(spawn(fake, { secrets }));
  assert.equal(readdirSync(join(instance.home.secrets, "workers")), []);
  assert.is(failure.message, 'Cannot start worker "mine": refused');
  assert.is(readRecord(instance, "mine"), undefined);
});

test("keeps an existing home if the worker cannot start", async (fake) => {
  const { instance, engine } = fake;
  await spawn(fake);
  const before = readdirSync(instance.home.workers);
  engine.containers.splice(engine.containers.indexOf(
    engine.find("mine") as FakeContainer,
  ));
  engine.refuses.set("start mine", 500);
  await failureOf(spawn(fake));
  assert.equal(readdirSync(instance.home.workers), before);
});

test("never removes a session's home", async (fake) => {
  const { instance, engine } = fake;
  engine.refuses.set("start mine", 500);
  await failureOf(spawn(fake, { session: "talk" }));
  assert.ok(existsSync(join(instance.home.claude, "talk")));
});

test("refuses a worker with replaced mounts, with the message of its gate", async (fake) => {
  const { engine, instance } = fake;
  const { worker, undo } = await prepareWorker(
    instance,
    requestFor(fake),
    fake.log,
  );
  assert.is(engine.find("mine")?.state, "created");
  await undo();
  assert.not(engine.find("mine"));
  assert.is(worker.name, "mine");
  const { docker } = engine;
  const refusing = {
    ...instance,
    docker: {
      ...docker,
      createContainer: async (
        request: Parameters<typeof docker.createContainer>[0],
      ) => {
        const container = await docker.createContainer(request);
        const found = engine.find(container.id);
        if (found) found.log = "error: Refused to start: /x was replaced\n";
        return container;
      },
    } as unknown as typeof docker,
  };
  const failure = await failureOf(
    spawnWorker(refusing, requestFor(fake), fake.log),
  );
  assert.is(failure.kind, "unsafe");
  assert.is(
    failure.message,
    'Cannot start worker "mine": Refused to start: /x was replaced',
  );
  assert.not(engine.find("mine"));
});

test("the message for a taken name depends on its owner", async (fake) => {
  const { engine, labels } = fake;
  const taken = async () => await failureOf(spawn(fake));
  engine.takenStatus = 500; // as Podman
  engine.add("mine", { spec: { Labels: labels() } });
  assert.is(
    (await taken()).message,
    'Cannot start worker "mine": the name is taken',
  );
  const holder = engine.find("mine") as FakeContainer;
  holder.spec = { Labels: { [label.instance]: "other" } };
  assert.match(
    (await taken()).message,
    /taken by a worker of instance "other"$/,
  );
  holder.spec = {};
  const failure = await taken();
  assert.match(failure.message, /taken by another container$/);
  assert.is(failure.kind, "busy");
});

test("reports a missing image, with the command that builds ours", async (fake) => {
  const failure = await failureOf(spawn(fake, { image: "nowhere" }));
  assert.is(failure.kind, "notFound");
  assert.match(failure.message, /there is no image nowhere$/);
  assert.match(failure.hint ?? "", /claudy up/);
});

test("leaves no secrets and no home behind if the image cannot be inspected", async (fake) => {
  const { instance, engine } = fake;
  const { docker } = engine;
  const broken = {
    ...instance,
    docker: {
      ...docker,
      getImage: () => ({ inspect: () => Promise.reject(new Error("broken")) }),
    } as unknown as typeof docker,
  };
  const request = requestFor(fake, {
    secrets: [{ name: "TOKEN", value: "planted" }],
    command: ["true"],
  });
  await failureOf(spawnWorker(broken, request, fake.log));
  const { home } = instance;
  assert.equal(readdirSync(join(home.secrets, "workers")), []);
  assert.equal(readdirSync(home.workers), []);
});

test("a command replaces the idle command and keeps the image's entrypoint", async (fake) => {
  const { engine } = fake;
  engine.images.set("own", { Id: "x", Config: { Entrypoint: ["/init"] } });
  await spawn(fake, { image: "own", command: ["make", "test"] });
  const { Cmd, OpenStdin } = engine.find("mine")?.spec ?? {};
  assert.equal(Cmd, ["/init", "make", "test"]);
  assert.is(OpenStdin, true);
});

test("limits are optional, and CPUs are capped to the engine's", async (fake) => {
  const { engine, instance, told } = fake;
  await spawn(fake, { limited: false });
  assert.is(engine.find("mine")?.spec.HostConfig?.Memory, undefined);
  assert.is(readRecord(instance, "mine")?.memoryBytes, null);
  const settings = { ...instance.settings, WORKER_CPUS: 1000 };
  await spawnWorker(
    { ...instance, settings },
    requestFor(fake, { name: "greedy" }),
    fake.log,
  );
  assert.is(engine.find("greedy")?.spec.HostConfig?.NanoCpus, 64e9);
  assert.equal(told, ["The engine has 64 CPUs: using 64 instead of 1000"]);
});

test("an ssh-agent must be a socket", async (fake) => {
  const { root } = fake;
  writeFileSync(join(root, "file"), "");
  const failure = await failureOf(
    spawn(fake, { sshAgent: join(root, "file") }),
  );
  assert.is(failure.kind, "usage");
  assert.match(failure.hint ?? "", /It is not a socket/);
  const path = join(root, "agent");
  const server = createServer().listen(path);
  await spawn(fake, { sshAgent: path });
  server.close();
  assert.ok(
    mountsOf(fake, "mine").includes(`${path}:/run/hal9000/ssh-agent.sock`),
  );
});

test("an ssh-agent on another machine than the engine's is reached by that machine's way", async (fake) => {
  const { root, instance, engine } = fake;
  const path = join(root, "agent");
  const server = createServer().listen(path).unref();
  const crossing = (cross: boolean) =>
    writeFileSync(
      instance.home.crossing,
      JSON.stringify({ version: 1, container: "x", cross }),
    );
  const relay = "/run/host-services/ssh-auth.sock";
  const answers: unknown[] = [
    { code: "ENOENT", message: "no such file" },
    { code: "EIO", message: "input/output error" },
    { path: relay, kind: "directory", uid: 0, gid: 0, inode: "1:2" },
    { path: relay, kind: "other", uid: 0, gid: 0, inode: "1:2" },
  ];
  const looked: string[][] = [];
  engine.images.set("repo:parent", {});
  engine.print = (command) => {
    if (command[0] !== relay) return "";
    looked.push(command);
    return JSON.stringify(answers[looked.length - 1]);
  };
  crossing(true);
  await spawn(fake, { sshAgent: path, name: "crosses" });
  assert.equal(looked, []);
  assert.not(engine.find("crosses")?.spec.HostConfig?.GroupAdd);
  crossing(false);
  const expected: [FailureKind, RegExp][] = [
    [
      "notFound",
      /^Cannot reach your ssh-agent .*: unix sockets do not cross .*, and it has no \/run\/host-services\/ssh-auth\.sock$/,
    ],
    ["notFound", /ssh-auth\.sock: input\/output error$/],
    ["usage", /^Cannot use "\/run\/host-services\/ssh-auth\.sock" as/],
  ];
  for (const [kind, message] of expected) {
    const failure = await failureOf(spawn(fake, { sshAgent: path }));
    assert.is(failure.kind, kind);
    assert.match(failure.message, message);
  }
  await spawn(fake, { sshAgent: path });
  server.close();
  assert.is(looked.length, answers.length);
  assert.ok(
    mountsOf(fake, "mine").includes(`${relay}:/run/hal9000/ssh-agent.sock`),
  );
  // The worker's user may connect as a member of the socket's group.
  assert.equal(engine.find("mine")?.spec.HostConfig?.GroupAdd, ["0"]);
});

test("mounts data of version 0.5 if it is requested and exists", async (fake) => {
  const { instance } = fake;
  mkdirSync(join(instance.home.home, "membank"));
  await spawn(fake, { formerData: true });
  const former = mountsOf(fake, "mine").filter((one) => one.includes("/data/"));
  assert.equal(former, [`${instance.home.home}/membank:/data/membank`]);
  await spawn(fake, { name: "other" });
  assert.not(mountsOf(fake, "other").some((one) => one.includes("/data/")));
});

test("spawnOnce() returns the running worker of the project", async (fake) => {
  const { engine, project } = fake;
  const resolved = await resolveProject(fake.instance, {
    path: project("app"),
    cwd: "/",
    as: "project",
    allowAny: false,
  });
  const request = { project: resolved, inherit: undefined };
  const first = await spawnOnce(fake.instance, request, fake.log);
  assert.is(first.name, sessionName(project("app")));
  assert.equal(await spawnOnce(fake.instance, request, fake.log), first);
  const worker = engine.find(first.id) as FakeContainer;
  worker.state = "exited";
  const next = await spawnOnce(fake.instance, request, fake.log);
  assert.is.not(next.id, first.id);
  assert.is(next.name, first.name);
});

test("spawns a worker cold without a pool", async (fake) => {
  const { start, worker } = await claimOrSpawn(
    fake.instance,
    requestFor(fake),
    fake.log,
  );
  assert.is(start, "cold");
  assert.is(fake.engine.find("mine")?.id, worker.id);
});

function worker(
  fake: FakeInstance,
  name: string,
  state: FakeContainer["state"],
) {
  const { engine, labels } = fake;
  return engine.add(name, {
    state,
    spec: {
      Labels: labels({ [label.project]: "/p" }),
      Image: "repo:worker",
      HostConfig: { NetworkMode: "container:fake-net" },
    },
  });
}

test("finds only workers by name and id", async (fake) => {
  const { instance, engine } = fake;
  const { id, spec } = worker(fake, "one", "running");
  spec.Image = "docker.io/library/repo:worker"; // as Podman lists it
  worker(fake, "two", "exited");
  engine.add("somebody-elses");
  assert.equal(
    (await listWorkers(instance)).map(({ name }) => name),
    ["one", "two"],
  );
  const found = await findWorker(instance, "one");
  assert.equal([found.id, found.image], [id, "repo:worker"]);
  assert.is((await findWorker(instance, id.slice(0, 12))).name, "one");
  const short = await failureOf(findWorker(instance, id.slice(0, 11)));
  assert.is(short.kind, "notFound");
  const near = await failureOf(findWorker(instance, "ones"));
  assert.match(near.hint ?? "", /one/);
  assert.match(near.hint ?? "", /List them: hal9000-coordinator list/);
  assert.equal(await liveWorkers(instance), ["one"]);
  engine.containers.length = 0;
  const none = await failureOf(findWorker(instance, "one"));
  assert.match(none.hint ?? "", /No worker exists/);
});

for (const listsHostConfig of [true, false]) {
  const list = listsHostConfig ? "Docker's list" : "Podman's list";
  test(`a worker has no network if its namespace was stopped or replaced, with ${list}`, async (fake) => {
    const { instance, engine } = fake;
    engine.listsHostConfig = listsHostConfig;
    const net = engine.find("fake-net") as FakeContainer;
    const one = worker(fake, "one", "running");
    worker(fake, "ended", "exited");
    const own = worker(fake, "own", "running");
    own.spec.HostConfig = { NetworkMode: "bridge" };
    const lost = async () => [
      ...await withoutNetwork(instance, await listWorkers(instance)),
    ];
    assert.equal(await lost(), []);
    net.startedAt = new Date(Date.now() + 60_000).toISOString();
    assert.equal(await lost(), ["one"]);
    // Restarted since, in the current namespace.
    one.startedAt = new Date(Date.now() + 120_000).toISOString();
    assert.equal(await lost(), []);
    net.state = "exited";
    assert.equal(await lost(), ["one"]);
  });
}

test("status shows limits, lost networks, and how the last workers ended", async (fake) => {
  const { instance, engine } = fake;
  const one = worker(fake, "one", "running");
  Object.assign(one.spec.HostConfig ?? {}, {
    Memory: 1024 ** 3,
    NanoCpus: 15e8,
    PidsLimit: 9,
  });
  const { workers } = await workersStatus(instance);
  const expected = {
    name: "one",
    summary: "Up 5 minutes",
    project: "",
    network: "shared",
    startedAt: one.startedAt,
    memoryBytes: 1024 ** 3,
    cpus: 1.5,
    pids: 9,
    oomKilled: false,
    limitEvents: null,
  };
  assert.equal(workers, [expected]);
  one.oomKilled = true;
  Object.assign(engine.find("fake-net") ?? {}, { state: "exited" });
  const [ill] = (await workersStatus(instance)).workers;
  assert.is(ill?.oomKilled, true);
  assert.match(
    ill?.summary ?? "",
    /^Up 5 minutes, its network has ended, OOM-killed at 1/,
  );
});

test("ignores the record of a former worker with the same name", async (fake) => {
  const { instance } = fake;
  const one = worker(fake, "one", "running");
  one.spec.Labels = { ...one.spec.Labels, [label.born]: "warm" };
  await spawn(fake);
  const record = readRecord(instance, "mine");
  assert.ok(record);
  writeRecord(instance, { ...record, worker: "one", container: "former" });
  const listed = await listWorkers(instance);
  assert.is(listed.find(({ name }) => name === "one")?.project, "");
});

test("usage() matches docker stats", () => {
  const sample = {
    cpu_stats: {
      cpu_usage: { total_usage: 300 },
      system_cpu_usage: 2000,
      online_cpus: 4,
    },
    precpu_stats: { cpu_usage: { total_usage: 100 }, system_cpu_usage: 1000 },
    memory_stats: { usage: 1000, stats: { inactive_file: 300 } },
    pids_stats: { current: 7 },
  };
  const use = (change: object = {}) =>
    usage(
      { ...sample, ...change } as unknown as Parameters<typeof usage>[0],
      { cpus: true, memory: true, pids: true },
    );
  assert.equal(use(), { cpuPercent: 80, memoryBytes: 700, pids: 7 });
  assert.is(use({ precpu_stats: sample.cpu_stats }).cpuPercent, 0);
  const memory_stats = { usage: 100, stats: { total_inactive_file: 300 } };
  assert.is(use({ memory_stats }).memoryBytes, 0);
  assert.is(use({ memory_stats: {} }).memoryBytes, 0);
  assert.is(use({ pids_stats: {} }).pids, 0);
});

test("oomText() includes the limit if there is one", () => {
  assert.match(oomText(1024 ** 3), /^OOM-killed at 1/);
  assert.match(oomText(null), /the machine had no memory left/);
});

test.run();
