// prune, clean and doctor on a fake engine: they must not remove anything that is in use
// or is the only copy of data.

import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  examineCredentials,
  examineHome,
  examineLeftovers,
  examineRecords,
} from "../../lib/doctor/kept.ts";
import {
  findLeftovers,
  type PruneOptions,
  removeLeftovers,
} from "../../lib/doctor/prune.ts";
import { label } from "../../lib/instance/labels.ts";
import { type WorkerRecord, writeRecord } from "../../lib/instance/record.ts";
import {
  readSession,
  writeSession,
} from "../../lib/instance/session-record.ts";
import { clean, planClean, storageStatus } from "../../lib/instance/storage.ts";
import { ensureStorage } from "../../lib/instance/volumes.ts";
import { type FakeInstance, fakeInstance } from "../helper/fake-engine.ts";

const test = suite<FakeInstance>("prune");

test.before.each((context) => {
  Object.assign(context, fakeInstance());
  context.engine.images.clear();
});
test.after.each(({ end }) => end());

const dayMs = 24 * 60 * 60_000;
const options: PruneOptions = {
  olderThanMs: dayMs,
  sessions: true,
  caches: true,
  allInstances: false,
};

/** Sets the age of a file in days. */
function age(path: string, days: number): string {
  const at = new Date(Date.now() - days * dayMs);
  utimesSync(path, at, at);
  return path;
}

function agedFile(path: string, days: number): string {
  mkdirSync(join(path, ".."), { recursive: true });
  writeFileSync(path, "text");
  return age(path, days);
}

function agedDirectory(path: string, days: number): string {
  agedFile(join(path, "file"), days);
  return age(path, days);
}

const found = async (
  { instance, log }: FakeInstance,
  change: Partial<PruneOptions> = {},
) =>
  (await findLeftovers(instance, { ...options, ...change }, log))
    .map(({ kind, name }) => `${kind} ${basename(name)}`).sort();

function recordOf(worker: string, change: Partial<WorkerRecord> = {}) {
  return {
    version: 1 as const,
    worker,
    container: `${worker}-id`,
    session: null,
    project: { path: "/p", uid: 0, gid: 0 },
    image: "repo:worker",
    born: "cold" as const,
    home: `workers/${worker}`,
    ephemeral: false,
    secrets: null,
    memoryBytes: null,
    oomKilledAt: null,
    createdAt: new Date().toISOString(),
    ...change,
  };
}

function session({ instance }: FakeInstance, name: string, days: number) {
  const at = new Date(Date.now() - days * dayMs).toISOString();
  writeSession(instance, {
    version: 1,
    name,
    project: "/p",
    createdAt: at,
    usedAt: at,
  });
  mkdirSync(join(instance.home.claude, name));
}

test("prune finds only old logs, records and damaged files", async (fake) => {
  const { home } = fake.instance;
  for (const days of [0, 2]) {
    agedFile(home.log(`log-${days}`), days);
    agedFile(join(home.ended, `ended-${days}.json`), days);
    agedFile(join(home.damaged, `damaged-${days}`), days);
  }
  assert.equal(await found(fake), [
    "log log-2.log",
    "record damaged-2",
    "record ended-2.json",
  ]);
});

test("prune keeps the Claude home of a worker with a record", async (fake) => {
  const { instance } = fake;
  for (const name of ["used", "free"]) {
    agedDirectory(instance.home.workerHome(name), 2);
  }
  agedDirectory(instance.home.workerHome("new"), 0);
  writeRecord(instance, recordOf("used"));
  assert.equal(await found(fake), ["home free"]);
});

test("prune keeps the newest backup regardless of its age", async (fake) => {
  const { backups } = fake.instance.home;
  agedDirectory(join(backups, "one"), 3);
  assert.equal(await found(fake), []);
  agedDirectory(join(backups, "two"), 2);
  agedDirectory(join(backups, "three"), 4);
  assert.equal(await found(fake), ["backup one", "backup three"]);
});

test("prune keeps sessions with a worker, and recently opened ones", async (fake) => {
  const { engine, labels } = fake;
  session(fake, "old", 2);
  session(fake, "new", 0);
  session(fake, "live", 2);
  engine.add("w", { spec: { Labels: labels({ [label.session]: "live" }) } });
  assert.equal(await found(fake), ["session old"]);
  assert.equal(await found(fake, { sessions: false }), []);
});

test("prune finds old unused images of HAL-9000", async (fake) => {
  const { engine } = fake;
  const image = (name: string, days: number) =>
    engine.images.set(name, {
      Id: `id-${name}`,
      Created: (Date.now() - days * dayMs) / 1000,
      Size: 7,
    });
  image("fake-profile:old", 2);
  image("fake-apt:new", 0);
  assert.equal(await found(fake), ["image id-fake-profile:old"]);
});

test("prune keeps untagged images that a running build may use", async (fake) => {
  const { engine } = fake;
  const minutesAgo = (minutes: number) => ({
    Created: Date.now() / 1000 - minutes * 60,
    Size: 7,
  });
  engine.images.set("old", { Id: "old", ...minutesAgo(90) });
  engine.images.set("new", { Id: "new", ...minutesAgo(5) });
  engine.images.set("fake-apt:new", { Id: "own", ...minutesAgo(5) });
  assert.equal(await found(fake, { olderThanMs: 0 }), [
    "image old",
    "image own",
  ]);
});

test("prune removes what it found, and reports failures", async (fake) => {
  const { instance, engine, log } = fake;
  session(fake, "old", 2);
  agedFile(instance.home.log("w"), 2);
  agedDirectory(instance.home.workerHome("free"), 2);
  const image = { kind: "image" as const, name: "id", sizeBytes: 0 };
  engine.refuses.set("rmi id", 409);
  const leftovers = [...await findLeftovers(instance, options, log), image];
  const { removed, errors } = await removeLeftovers(
    instance,
    leftovers,
    options,
    log,
  );
  assert.is(removed.length, 3);
  assert.equal(errors, ["Cannot remove image id: refused"]);
  assert.is(readSession(instance, "old"), undefined);
  assert.equal(readdirSync(instance.home.claude), []);
  assert.equal(readdirSync(instance.home.workers), []);
  assert.not(existsSync(instance.home.log("w")));
});

test("prune keeps what has come into use since it was listed", async (fake) => {
  const { instance, engine, told, log, labels } = fake;
  session(fake, "old", 2);
  agedDirectory(instance.home.workerHome("free"), 2);
  const leftovers = await findLeftovers(instance, options, log);
  engine.add("w", { spec: { Labels: labels({ [label.session]: "old" }) } });
  writeRecord(instance, recordOf("free"));
  assert.equal(await removeLeftovers(instance, leftovers, options, log), {
    removed: [],
    errors: [],
  });
  assert.ok(readSession(instance, "old"));
  assert.ok(existsSync(instance.home.workerHome("free")));
  assert.is(told.length, 2);
});

const failureOf = (
  promise: Promise<unknown>,
): Promise<Error & { kind: string }> =>
  promise.then(() => assert.unreachable() as never, (error) => error);

test("clean removes everything except the backups and the instance's name", async (fake) => {
  const { instance, engine } = fake;
  engine.containers.length = 0;
  await ensureStorage(instance);
  for (const [name, volume] of engine.volumes) {
    engine.volumes.set(name, { ...volume, Mountpoint: `/volumes/${name}` });
  }
  const { home } = instance;
  agedDirectory(join(home.backups, "one"), 0);
  const plan = await planClean(instance);
  assert.is(plan.volumes.length, 3);
  assert.ok(existsSync(home.sessions));
  await clean(instance, plan);
  assert.equal([...engine.volumes.keys()], []);
  assert.equal(readdirSync(home.home).sort(), ["backups", "run"]);
  assert.equal(readdirSync(home.backups), ["one"]);
  assert.equal(readdirSync(home.run), ["instance"]);
});

test("clean is refused while something is in use or belongs to another instance", async (fake) => {
  const { instance, engine, labels } = fake;
  engine.containers.length = 0;
  await ensureStorage(instance);
  const volume = engine.volumes.get("fake-chromadb") as { Labels: object };
  const own = volume.Labels;
  volume.Labels = {};
  const foreign = await failureOf(planClean(instance));
  assert.is(foreign.message, `Volume "fake-chromadb" is not this instance's`);
  volume.Labels = own;
  const source = join(instance.home.home, "workers", "w");
  const using = { Type: "bind" as const, Source: source, Target: "/x" };
  engine.add("w", {
    spec: { Labels: labels(), HostConfig: { Mounts: [using] } },
  });
  const busy = await failureOf(planClean(instance));
  assert.is(busy.kind, "busy");
  assert.is(busy.message, "Cannot clean: in use by w");
  engine.containers.length = 0;
  writeFileSync(join(instance.home.migration, "journal.json"), "{}");
  const moving = await failureOf(planClean(instance));
  assert.match(moving.message, /a migration or rollback has not finished/);
});

test("clean refuses a directory that is not the home of an instance", async (fake) => {
  const { instance, engine } = fake;
  engine.containers.length = 0;
  rmSync(instance.home.instance);
  const failure = await failureOf(planClean(instance));
  assert.is(failure.kind, "unsafe");
});

test("doctor reports a home that others can read, with a fix", ({ instance }) => {
  const { home } = instance.home;
  assert.is(examineHome(instance).state, "ok");
  chmodSync(home, 0o750);
  const open = examineHome(instance);
  assert.is(open.state, "fail");
  assert.is(open.mend, `chmod 700 ${home}`);
  rmSync(home, { recursive: true });
  assert.is(examineHome(instance).state, "warn");
});

test("doctor finds records without a worker, and workers without a record", async (fake) => {
  const { instance, engine, labels } = fake;
  assert.is((await examineRecords(instance)).state, "ok");
  assert.is((await examineLeftovers(instance)).state, "ok");
  writeRecord(instance, recordOf("gone"));
  const stale = await examineRecords(instance);
  assert.is(stale.says, "without a worker: gone");
  engine.add("strange", { spec: { Labels: labels() } });
  const { id } = engine.add("kept", {
    state: "exited",
    spec: { Labels: labels({ [label.keep]: "true" }) },
  });
  writeRecord(instance, recordOf("kept", { container: id }));
  const leaked = await examineLeftovers(instance);
  assert.is(leaked.says, "workers that have ended or have no record: strange");
  assert.is(leaked.mend, "claudy stop strange");
});

test("doctor finds helpers that did not exit", async (fake) => {
  const { instance, engine, labels } = fake;
  const spec = { Labels: { ...labels(), [label.role]: "helper" } };
  engine.add("new-helper", { spec });
  assert.is((await examineLeftovers(instance)).state, "ok");
  const createdAt = new Date(Date.now() - 2 * 60 * 60_000).toISOString();
  const { id } = engine.add("old-helper", { spec, createdAt });
  const { mend } = await examineLeftovers(instance);
  assert.is(mend, `docker rm --force ${id.slice(0, 12)}`);
});

test("doctor shows the kind of credential, and never its value", ({ instance }) => {
  const { state, mend } = examineCredentials(instance, {});
  assert.equal([state, mend], ["warn", "claudy login"]);
  const env = { ANTHROPIC_API_KEY: "sk-secret" };
  const caller = examineCredentials(instance, env);
  assert.is(caller.state, "ok");
  assert.not.match(JSON.stringify(caller), /sk-secret/);
  writeFileSync(instance.home.anthropicKey, "sk-kept");
  assert.is(examineCredentials(instance, env).says, "a key is kept");
});

test("sizes of volumes are asked for again while the engine measures for another command", async (fake) => {
  const { instance, engine } = fake;
  let asked = 0;
  const df = () =>
    ++asked < 3
      ? Promise.reject(new Error("a disk usage operation is already running"))
      : engine.docker.df();
  const docker = { ...engine.docker, df } as unknown as typeof engine.docker;
  const { volumes } = await storageStatus({ ...instance, docker });
  assert.is(asked, 3);
  assert.is(volumes.length, 3);
  const broken = () => Promise.reject(new Error("broken"));
  const other = {
    ...engine.docker,
    df: broken,
  } as unknown as typeof engine.docker;
  await storageStatus({ ...instance, docker: other }).then(
    () => assert.unreachable(),
    (error) => assert.match(error.message, /broken/),
  );
});

test.run();
