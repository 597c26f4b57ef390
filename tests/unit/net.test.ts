// Finding workers that have lost their network, with a fake engine.

import { test } from "uvu";
import * as assert from "uvu/assert";
import type { Docker } from "../../lib/docker/docker.ts";
import { isBefore } from "../../lib/docker/docker.ts";
import { withoutNetwork } from "../../lib/worker/workers.ts";
import type { WorkerState } from "../../lib/worker/workers.ts";

/** Running containers by id, with their start time. */
function engine(started: Record<string, string>, inspected: string[] = []) {
  return {
    getContainer: (id: string) => ({
      inspect: () => {
        inspected.push(id);
        const StartedAt = started[id];
        return StartedAt === undefined
          ? Promise.reject(
            Object.assign(new Error("none"), { statusCode: 404 }),
          )
          : Promise.resolve({ State: { Running: true, StartedAt } });
      },
    }),
  } as unknown as Docker;
}

function worker(name: string, more: Partial<WorkerState> = {}): WorkerState {
  return {
    name,
    id: name,
    state: "running",
    status: "",
    image: "",
    project: "/p",
    session: null,
    born: "cold",
    keep: false,
    createdAt: "2026-01-26T11:00:00.000Z",
    networkMode: "container:net",
    network: "shared",
    inputs: null,
    ...more,
  };
}

const lostOf = async (docker: Docker, workers: WorkerState[]) => [
  ...await withoutNetwork({ docker }, workers),
];

test("withoutNetwork() ignores workers started after their net", async () => {
  const inspected: string[] = [];
  const docker = engine({ net: "2026-01-26T10:00:00.5Z" }, inspected);
  assert.equal(await lostOf(docker, [worker("a"), worker("b")]), []);
  assert.equal(inspected, ["net"]);
});

test("withoutNetwork() returns workers started before their net", async () => {
  const docker = engine({
    net: "2026-01-26T12:00:00.5Z",
    a: "2026-01-26T11:00:00.1Z",
    restarted: "2026-01-26T12:00:01.1Z",
  });
  const workers = [
    worker("a"),
    worker("restarted"),
    worker("ended", { state: "exited" }),
    worker("own", { networkMode: "default" }),
  ];
  assert.equal(await lostOf(docker, workers), ["a"]);
});

test("withoutNetwork() returns all workers if there is no net", async () => {
  assert.equal(await lostOf(engine({}), [worker("a"), worker("b")]), [
    "a",
    "b",
  ]);
});

test("isBefore() compares times with omitted zeros", () => {
  assert.ok(isBefore("2026-01-26T12:00:00.1Z", "2026-01-26T12:00:00.12Z"));
  assert.not(isBefore("2026-01-26T12:00:00.12Z", "2026-01-26T12:00:00.1Z"));
});

test.run();
