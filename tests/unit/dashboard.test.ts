import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  countOf,
  fitLines,
  overviewLines,
  paneHeights,
  usageLines,
  workerLines,
} from "../../lib/parent/dashboard/panes.ts";
import type { WatchedWorker } from "../../lib/session/watch.ts";

const watched = (
  name: string,
  activity?: "idle" | "waiting",
): WatchedWorker => ({
  worker: {
    name,
    id: "",
    state: "running",
    status: "",
    image: "",
    project: `/p/${name}`,
    session: name,
    born: "cold",
    keep: false,
    createdAt: "",
    network: "container:net",
    inputs: null,
  },
  said: activity === undefined ? null : { activity, waitingFor: null },
});

const overview = {
  parent: "hal9000-parent",
  startedAt: "2026-01-01T00:00:00Z",
  readyMs: 120,
  chromadbPort: 8000,
  chromadbAnswers: true,
  pool: { warm: 2, busy: 1 },
};

test("overviewLines() always has one line per subject", () => {
  const now = Date.parse("2026-01-01T00:05:00Z");
  const workers = [watched("a", "waiting"), watched("b", "idle"), watched("c")];
  assert.equal(overviewLines(overview, workers, now), [
    "Parent    hal9000-parent, up 5 min, ready after 120 ms",
    "ChromaDB  answers on localhost:8000",
    "Pool      2 warm, 1 claimed",
    "Sessions  1 waiting for you, 1 idle",
  ]);
  const nothing = { ...overview, readyMs: null, pool: null };
  assert.is(overviewLines(nothing, [], now).length, 4);
});

test("workerLines() shows waiting sessions first, and escapes names", () => {
  const hostile = watched("a", "idle");
  hostile.worker.project = "/p/\x1b[2J";
  const lines = workerLines([hostile, watched("b", "waiting")]);
  assert.match(lines[1] ?? "", /^b .*waiting/);
  assert.match(lines[2] ?? "", "/p/\\x1b[2J");
  assert.not.match(lines.join(""), "\x1b");
  assert.is(workerLines([]).length, 1);
});

test("usageLines() shows the usage of each worker", () => {
  const lines = usageLines([
    {
      name: "a",
      cpuPercent: 12.345,
      memoryBytes: 3 * 1024 ** 2,
      pids: 7,
      limitEvents: null,
    },
  ]);
  assert.equal(lines[1]?.split(/ {2,}/), ["a", "12.3 %", "3 MiB", "7"]);
});

test("fitting() cuts, and says how much", () => {
  assert.equal(fitLines(["a", "b"], 2), ["a", "b"]);
  assert.equal(fitLines(["a", "b", "c"], 2), ["a", "... 2 more"]);
});

for (const height of [23, 40, 49]) {
  test(`paneHeights() fills a window of ${height} lines`, () => {
    const heights = paneHeights(height);
    assert.is(heights.reduce((sum, each) => sum + each, 4), height);
    assert.ok(heights.every((each) => each >= 4));
  });
}

test("countOf() counts sessions with an activity", () => {
  assert.is(countOf([watched("a", "idle"), watched("b")], "idle"), 1);
});

test.run();
