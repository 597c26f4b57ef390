import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { WorkerRecord } from "../../lib/instance/record.ts";
import { planReconcile } from "../../lib/parent/reconcile.ts";
import type { WorkerState } from "../../lib/worker/workers.ts";

const test = suite("reconcile");
const now = Date.parse("2026-01-26T12:00:00.000Z");

function worker(id: string, change: Partial<WorkerState> = {}): WorkerState {
  return {
    name: `worker-${id}`,
    id,
    state: "running",
    status: "Up 5 minutes",
    image: "repo:worker",
    project: "/p",
    session: null,
    born: "cold",
    keep: false,
    inputs: null,
    createdAt: "2026-01-26T11:00:00.000Z",
    networkMode: "container:net",
    network: "shared",
    ...change,
  };
}

function record(container: string): WorkerRecord {
  return {
    version: 1,
    worker: `worker-${container}`,
    container,
    session: null,
    project: { path: "/p", uid: 0, gid: 0 },
    image: "repo:worker",
    born: "cold",
    home: "workers/x",
    ephemeral: false,
    secrets: null,
    memoryBytes: null,
    oomKilledAt: null,
    createdAt: "2026-01-26T11:00:00.000Z",
  };
}

function plan(workers: WorkerState[], records: WorkerRecord[]) {
  const { adopt, close, retire } = planReconcile(workers, records, now);
  return {
    adopt: adopt.map(({ id }) => id),
    close: close.map(({ container }) => container),
    retire: retire.map(({ id }) => id),
  };
}

test("leaves a worker with its record alone", () => {
  assert.equal(plan([worker("a")], [record("a")]), {
    adopt: [],
    close: [],
    retire: [],
  });
});

test("adopts a live worker without a record", () => {
  assert.equal(plan([worker("a")], []), {
    adopt: ["a"],
    close: [],
    retire: [],
  });
});

test("a worker for one command is forsaken once that has had its time", () => {
  const abandoned = (nowMs: number) =>
    planReconcile([worker("a")], [{ ...record("a"), once: true }], nowMs)
      .abandoned.map(({ container }) => container);
  const createdMs = Date.parse(record("a").createdAt);
  assert.equal(abandoned(createdMs + 20_000), []);
  assert.equal(abandoned(createdMs + 40_000), ["a"]);
  assert.equal(planReconcile([worker("a")], [record("a")], now).abandoned, []);
});

test("closes a record without a worker", () => {
  assert.equal(plan([], [record("a")]), {
    adopt: [],
    close: ["a"],
    retire: [],
  });
});

test("closes the record of another container with the same name", () => {
  const taken = { ...record("old"), worker: "worker-a" };
  assert.equal(plan([worker("a")], [taken]).close, ["old"]);
});

for (const state of ["exited", "dead"]) {
  test(`retires a worker that is ${state}, unless it is kept`, () => {
    const workers = [
      worker("a", { state }),
      worker("b", { state, keep: true }),
    ];
    assert.equal(plan(workers, [record("a"), record("b")]).retire, ["a"]);
  });
}

test("waits for a created worker to be started", () => {
  const workers = [
    worker("new", { state: "created", createdAt: "2026-01-26T11:59:45.000Z" }),
    worker("old", { state: "created", createdAt: "2026-01-26T11:59:15.000Z" }),
  ];
  assert.equal(plan(workers, [record("new"), record("old")]).retire, ["old"]);
});

test("does not treat a paused or restarting worker as exited", () => {
  const workers = ["paused", "restarting"].map((state) =>
    worker(state, { state })
  );
  assert.equal(plan(workers, workers.map(({ id }) => record(id))).retire, []);
});

test.run();
