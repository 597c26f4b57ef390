// The disk use of workers.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { examineDiskUse } from "../../lib/doctor/limits.ts";
import { keepMeasured } from "../../lib/parent/disk.ts";
import { writeRecord } from "../../lib/instance/record.ts";
import { type DiskUse, diskUse, overDisk } from "../../lib/worker/disk-use.ts";
import { fakeInstance } from "../helper/fake-engine.ts";

const use = (change: Partial<DiskUse>): DiskUse => ({
  name: "w",
  containerBytes: 0,
  homeBytes: 0,
  ...change,
});

test("overDisk() adds container and home, and includes what is not measured", () => {
  const uses = [
    use({ name: "small", containerBytes: 60, homeBytes: 40 }),
    use({ name: "large", containerBytes: 60, homeBytes: 41 }),
    use({ name: "container", containerBytes: null }),
    use({ name: "home", homeBytes: null }),
  ];
  assert.equal(overDisk(uses, 100).map(({ name }) => name), [
    "large",
    "container",
    "home",
  ]);
});

/** An instance with a worker, which has a home. */
function withWorker() {
  const fake = fakeInstance();
  const { instance, engine, labels } = fake;
  engine.containers.length = 0;
  const { id } = engine.add("w", { spec: { Labels: labels({}) } });
  writeRecord(instance, {
    version: 1,
    worker: "w",
    container: id,
    session: null,
    project: { path: "/p", uid: 0, gid: 0 },
    image: "i",
    born: "cold",
    home: "workers/w",
    ephemeral: false,
    secrets: null,
    memoryBytes: null,
    oomKilledAt: null,
    createdAt: "2026-01-01T00:00:00.000Z",
  });
  const home = join(instance.home.home, "workers", "w");
  mkdirSync(home, { recursive: true });
  writeFileSync(join(home, "file"), "x".repeat(2000));
  return fake;
}

test("doctor reports what workers use in container and home", async () => {
  const { instance, engine, end } = withWorker();
  engine.sizeRw = 3 * 1024 ** 2;
  const [measured] = await diskUse(instance, 5000);
  assert.is(measured?.containerBytes, 3 * 1024 ** 2);
  assert.ok((measured?.homeBytes ?? 0) >= 2000);
  assert.is((await examineDiskUse(instance)).state, "ok");
  const settings = { ...instance.settings, WORKER_DISK: 3 * 1024 ** 2 };
  const finding = await examineDiskUse({ ...instance, settings });
  assert.is(finding.state, "warn");
  assert.match(
    finding.says,
    /^"w": 3 MiB in its container, .* in its home \(WORKER_DISK: 3 MiB\)$/,
  );
  assert.match(finding.mend ?? "", /claudy stop w$/);
  end();
});

test("the parent reports such workers, and each once in its log", async () => {
  const { instance, engine, log, told, end } = withWorker();
  engine.sizeRw = 3 * 1024 ** 2;
  const stop = new AbortController();
  const settings = { ...instance.settings, WORKER_DISK: 1024 ** 2 };
  const over = await new Promise<DiskUse[]>((resolve) =>
    void keepMeasured({ ...instance, settings }, stop.signal, log, resolve)
  );
  stop.abort();
  assert.equal(over.map(({ name }) => name), ["w"]);
  assert.match(told.join(), /^Worker uses more than WORKER_DISK: "w": 3 MiB/);
  end();
});

test.run();
