// Cleaning up after exited workers, on a fake engine.

import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { label } from "../../lib/instance/labels.ts";
import { insideWorker } from "../../lib/instance/paths.ts";
import {
  readEndedRecords,
  readRecord,
  readRecords,
  type WorkerRecord,
  writeRecord,
} from "../../lib/instance/record.ts";
import { keepReconciled, reconcile } from "../../lib/parent/reconcile.ts";
import { waitFor } from "../../lib/std/wait.ts";
import { retireWorker, stopWorker } from "../../lib/worker/ending.ts";
import {
  forgetSecrets,
  keepSecrets,
  readSecrets,
} from "../../lib/worker/secrets.ts";
import {
  type FakeContainer,
  type FakeInstance,
  fakeInstance,
} from "../helper/fake-engine.ts";

const test = suite<FakeInstance>("ending");

test.before.each((context) => void Object.assign(context, fakeInstance()));
test.after.each(({ end }) => end());

const old = new Date(Date.now() - 60 * 60_000);

function workerIn(
  { engine, labels, root }: FakeInstance,
  name: string,
  change: Partial<FakeContainer> = {},
): FakeContainer {
  const project = join(root, "app");
  return engine.add(name, {
    spec: {
      Labels: labels({ [label.project]: project }),
      Image: "repo:worker",
    },
    ...change,
  });
}

function recordOf(
  { id, name }: Pick<FakeContainer, "id" | "name">,
  change: Partial<WorkerRecord> = {},
): WorkerRecord {
  return {
    version: 1,
    worker: name,
    container: id,
    session: null,
    project: { path: "/p", uid: 0, gid: 0 },
    image: "repo:worker",
    born: "cold",
    home: `workers/${name}`,
    ephemeral: false,
    secrets: null,
    memoryBytes: null,
    oomKilledAt: null,
    createdAt: new Date().toISOString(),
    ...change,
  };
}

/** A secret that was created an hour ago. */
function oldSecret({ instance }: FakeInstance, worker: string): string {
  const { owner, home } = instance;
  const secrets = [{ name: "TOKEN", value: "s3cret" }];
  const name = keepSecrets(instance, worker, secrets, owner);
  utimesSync(home.workerSecrets(name), old, old);
  return name;
}

test("reconciliation keeps the secrets of a live worker", async (fake) => {
  const { instance, log } = fake;
  const worker = workerIn(fake, "w");
  const secrets = oldSecret(fake, "w");
  writeRecord(instance, recordOf(worker, { secrets }));
  await reconcile(instance, log);
  await reconcile(instance, log);
  const path = join(instance.home.workerSecrets(secrets), "TOKEN");
  assert.is(readFileSync(path, "utf8"), "s3cret");
  assert.ok(readRecord(instance, "w"));
});

test("removes secrets without a worker, except those being created", async (fake) => {
  const { instance, log } = fake;
  const orphan = oldSecret(fake, "gone");
  const { owner, home } = instance;
  const fresh = keepSecrets(instance, "new", [], owner);
  await reconcile(instance, log);
  assert.not(existsSync(home.workerSecrets(orphan)));
  assert.ok(existsSync(home.workerSecrets(fresh)));
});

test("removes the unused home of a generated name, and keeps that of a chosen name", async (fake) => {
  const { instance, log } = fake;
  const { workers } = instance.home;
  const used = instance.names.worker("00000001-00000001");
  const names = [
    used,
    instance.names.worker("00000002-00000002"),
    "my-worker-00000003",
  ];
  for (const name of names) {
    mkdirSync(join(workers, name));
    utimesSync(join(workers, name), old, old);
  }
  const fresh = instance.names.worker("00000004-00000004");
  mkdirSync(join(workers, fresh));
  const worker = workerIn(fake, "w");
  writeRecord(instance, recordOf(worker, { home: `workers/${used}` }));
  await reconcile(instance, log);
  assert.equal(
    readdirSync(workers).sort(),
    [used, fresh, "my-worker-00000003"].sort(),
  );
});

test("removes claims of removed containers, and keeps those of live ones", async (fake) => {
  const { instance, log } = fake;
  const worker = workerIn(fake, "w");
  writeRecord(instance, recordOf(worker));
  const { home } = instance;
  for (const id of [worker.id, "gone"]) {
    writeFileSync(home.loan(id), "{}");
    utimesSync(home.loan(id), old, old);
  }
  await reconcile(instance, log);
  assert.ok(existsSync(home.loan(worker.id)));
  assert.not(existsSync(home.loan("gone")));
});

test("removes old temporary files", async (fake) => {
  const { instance, log } = fake;
  const { home } = instance;
  const staged = (name: string) =>
    join(home.kept, `${name}.json.0123456789abcdef.tmp`);
  for (const name of ["old", "new"]) writeFileSync(staged(name), "");
  writeFileSync(join(home.kept, "plain.json.tmp"), "");
  utimesSync(staged("old"), old, old);
  utimesSync(join(home.kept, "plain.json.tmp"), old, old);
  await reconcile(instance, log);
  assert.not(existsSync(staged("old")));
  assert.ok(existsSync(staged("new")));
  assert.ok(existsSync(join(home.kept, "plain.json.tmp")));
});

test("recreates the lost record of a live worker from Docker's data", async (fake) => {
  const { instance, engine, log, labels } = fake;
  const { home } = instance;
  const source = (Source: string, Target: string) => ({
    Type: "bind" as const,
    Source,
    Target,
  });
  const { id } = engine.add("w", {
    spec: {
      Labels: labels({ [label.project]: "/p", [label.session]: "s" }),
      Image: "repo:worker",
      User: "1000:1001",
      HostConfig: {
        Memory: 1024,
        Mounts: [
          source(home.workerHome("w-home"), insideWorker.claudeHome),
          source(home.workerSecrets("w-1"), insideWorker.secrets),
        ],
      },
    },
  });
  await reconcile(instance, log);
  const { createdAt: _, ...record } = readRecord(instance, "w") ?? {};
  assert.equal(record, {
    version: 1,
    worker: "w",
    container: id,
    session: "s",
    project: { path: "/p", uid: 1000, gid: 1001 },
    image: "repo:worker",
    born: "cold",
    home: "workers/w-home",
    ephemeral: false,
    secrets: "w-1",
    memoryBytes: 1024,
    oomKilledAt: null,
  });
});

test("leaves a foreign container with our labels alone, and reports it once", async (fake) => {
  const { instance, engine, log, labels, told } = fake;
  engine.add("stranger", { spec: { Labels: labels(), User: "" } });
  await reconcile(instance, log);
  await reconcile(instance, log);
  assert.equal(readRecords(instance), []);
  assert.ok(engine.find("stranger"));
  assert.equal(told, [
    'Worker "stranger" was not created by HAL-9000; ignoring it',
  ]);
});

test("removes an exited worker, keeps its log and closes its record", async (fake) => {
  const { instance, engine, log } = fake;
  const worker = workerIn(fake, "w", {
    state: "exited",
    exitCode: 7,
    log: "last words\n",
  });
  const secrets = oldSecret(fake, "w");
  writeRecord(instance, recordOf(worker, { secrets }));
  await reconcile(instance, log);
  assert.not(engine.find("w"));
  assert.is(readFileSync(instance.home.log("w"), "utf8"), "last words\n");
  assert.not(existsSync(instance.home.workerSecrets(secrets)));
  assert.is(readRecord(instance, "w"), undefined);
  const [ended] = readEndedRecords(instance);
  assert.equal(ended?.end, { at: worker.createdAt, exitCode: 7 });
});

test("closes the record of a removed worker, and removes its secrets", async (fake) => {
  const { instance, log } = fake;
  const secrets = oldSecret(fake, "gone");
  writeRecord(instance, recordOf({ id: "x", name: "gone" }, { secrets }));
  await reconcile(instance, log);
  assert.is(readRecord(instance, "gone"), undefined);
  assert.not(existsSync(instance.home.workerSecrets(secrets)));
  assert.is(readEndedRecords(instance)[0]?.end.exitCode, null);
});

test("stops a worker for one command only when nothing runs in it", async (fake) => {
  const { instance, engine, log } = fake;
  const createdAt = old.toISOString();
  const busy = workerIn(fake, "busy", { programs: ["make"] });
  const idle = workerIn(fake, "idle");
  const kept = workerIn(fake, "kept");
  for (const worker of [busy, idle]) {
    writeRecord(instance, recordOf(worker, { once: true, createdAt }));
  }
  writeRecord(instance, recordOf(kept, { createdAt }));
  await reconcile(instance, log);
  assert.ok(engine.find("busy"));
  assert.not(engine.find("idle"));
  assert.ok(engine.find("kept"));
});

test("the parent closes a worker's record soon after it exits", async (fake) => {
  const { instance, engine, log } = fake;
  const worker = workerIn(fake, "w");
  writeRecord(instance, recordOf(worker));
  const stop = new AbortController();
  const kept = keepReconciled(instance, stop.signal, log);
  await waitFor(() => engine.followers > 0, { for: "events", timeoutMs: 3000 });
  await sleep(50);
  engine.emit("oom", worker);
  await waitFor(() => readRecord(instance, "w")?.oomKilledAt, {
    for: "the note of its memory",
    timeoutMs: 3000,
  });
  worker.state = "exited";
  engine.emit("die", worker);
  await waitFor(() => readEndedRecords(instance)[0], {
    for: "the record to be closed",
    timeoutMs: 5000,
  });
  stop.abort();
  await kept;
  assert.not(engine.find("w"));
});

test("notes that a worker runs out of memory once a second, however often it does", async (fake) => {
  const { instance, engine, told, log } = fake;
  const worker = workerIn(fake, "w");
  writeRecord(instance, recordOf(worker));
  const stop = new AbortController();
  const kept = keepReconciled(instance, stop.signal, log);
  await waitFor(() => engine.followers > 0, { for: "events", timeoutMs: 3000 });
  const since = Date.now();
  for (let count = 0; count < 200; count++) engine.emit("oom", worker);
  const seconds = Math.ceil((Date.now() - since) / 1000) + 1;
  await waitFor(() => readRecord(instance, "w")?.oomKilledAt, {
    for: "the note of its memory",
    timeoutMs: 3000,
  });
  stop.abort();
  await kept;
  const noted = told.filter((line) => line.includes("ran out of memory"));
  assert.ok(noted.length > 0 && noted.length <= seconds, `${noted.length}`);
});

test("ignores an oom event of another worker with the same name", async (fake) => {
  const { instance, engine, log } = fake;
  const worker = workerIn(fake, "w");
  writeRecord(instance, recordOf(worker));
  const stop = new AbortController();
  const kept = keepReconciled(instance, stop.signal, log);
  await waitFor(() => engine.followers > 0, { for: "events", timeoutMs: 3000 });
  engine.emit("oom", { ...worker, id: "another" });
  await sleep(100);
  stop.abort();
  await kept;
  assert.is(readRecord(instance, "w")?.oomKilledAt, null);
});

test("stopWorker() stops the worker, keeps its log, then removes it", async (fake) => {
  const { instance, engine, log } = fake;
  const worker = workerIn(fake, "w", { log: "words\n" });
  const home = instance.home.workerHome("w");
  mkdirSync(home);
  writeRecord(instance, recordOf(worker, { ephemeral: true }));
  await stopWorker(instance, worker, log);
  assert.equal(engine.asked, ["stop w", "remove w"]);
  assert.is(readFileSync(instance.home.log("w"), "utf8"), "words\n");
  assert.not(existsSync(home));
});

test("keeps the home of a worker with a chosen name", async (fake) => {
  const { instance, log } = fake;
  const worker = workerIn(fake, "w");
  mkdirSync(instance.home.workerHome("w"));
  writeRecord(instance, recordOf(worker));
  await stopWorker(instance, worker, log);
  assert.ok(existsSync(instance.home.workerHome("w")));
});

for (const status of [404, 409]) {
  test(`stopWorker() succeeds if another process retires the worker (${status})`, async (fake) => {
    const { instance, engine, log } = fake;
    const worker = workerIn(fake, "w");
    engine.refuses.set("stop w", status);
    await stopWorker(instance, worker, log);
    assert.not(engine.find("w"));
  });
}

test("stopWorker() removes nothing if the engine cannot stop the worker", async (fake) => {
  const { instance, engine, log } = fake;
  const worker = workerIn(fake, "w");
  engine.refuses.set("stop w", 500);
  let message = "";
  await stopWorker(instance, worker, log)
    .catch((error) => message = error.message);
  assert.is(message, 'Cannot stop worker "w": refused');
  assert.ok(engine.find("w"));
});

test("the log of a worker that ran out of memory ends with its limit", async (fake) => {
  const { instance, log } = fake;
  const worker = workerIn(fake, "w", {
    state: "exited",
    oomKilled: true,
    log: "words\n",
  });
  worker.spec.HostConfig = { Memory: 1024 ** 3 };
  writeRecord(instance, recordOf(worker));
  await retireWorker(instance, worker, log);
  const text = readFileSync(instance.home.log("w"), "utf8");
  assert.match(text, /^words\n\n\[hal9000\] OOM-killed at 1/);
  assert.is(readEndedRecords(instance)[0]?.oomKilledAt, worker.createdAt);
});

test("keeps only the newest 200 logs of workers", async (fake) => {
  const { instance, log } = fake;
  const { home } = instance;
  for (let count = 0; count < 201; count++) {
    writeFileSync(home.log(`former-${count}`), "");
    const at = new Date(old.getTime() + count * 1000);
    utimesSync(home.log(`former-${count}`), at, at);
  }
  const worker = workerIn(fake, "w", { state: "exited" });
  await retireWorker(instance, worker, log);
  const logs = readdirSync(home.logs).filter((name) => name.endsWith(".log"));
  assert.is(logs.length, 200);
  assert.ok(logs.includes("w.log"));
  assert.not(logs.includes("former-0.log"));
});

test("keeps the recorded end of a worker whose container was already removed", async (fake) => {
  const { instance, log } = fake;
  const worker = { id: "x", name: "w" };
  writeRecord(instance, recordOf(worker));
  await retireWorker(instance, worker, log);
  assert.is(readEndedRecords(instance)[0]?.end.exitCode, null);
});

test("secrets are readable only by the worker's user, and removed with the worker", (fake) => {
  const { instance } = fake;
  const { owner, home } = instance;
  const secrets = [{ name: "A", value: "1" }, { name: "B", value: "2" }];
  const name = keepSecrets(instance, "w", secrets, owner);
  assert.equal(readdirSync(home.workerSecrets(name)), ["A", "B"]);
  assert.is.not(keepSecrets(instance, "w", secrets, owner), name);
  forgetSecrets(instance, null);
  assert.ok(existsSync(dirname(home.workerSecrets(name))));
  forgetSecrets(instance, name);
  assert.not(existsSync(home.workerSecrets(name)));
});

test("readSecrets() reads variables and files, and never shows values in errors", (fake) => {
  const { instance, root } = fake;
  writeFileSync(join(root, "token"), "from-file");
  const read = (texts: string[]) =>
    readSecrets(texts, { A: "from-env", E: "" }, instance.host, root)
      .map(({ name, value }) => `${name}=${value}`);
  assert.equal(read(["A", "B=token"]), ["A=from-env", "B=from-file"]);
  const refused: [string[], RegExp][] = [
    [["A", "A"], /Secret A is given twice/],
    [["missing"], /Secret missing is not set in the environment/],
    [["E"], /Secret E is not set in the environment/],
    [["1A"], /must be NAME or NAME=FILE/],
    [["s3cret value"], /^(?!.*s3cret).*must be NAME/],
    [["B=nowhere"], /Cannot read the file of secret B/],
    [["B=."], /Cannot read the file of secret B/],
  ];
  for (const [texts, pattern] of refused) {
    assert.throws(() => read(texts), pattern);
  }
});

test.run();
